"""What a user writes from the documentation alone: a sampler and an estimator of their own, at every door."""

import dataclasses
import importlib
import math

import numpy as np
import pytest

from backends import slow_in
from families.cases import make, parameters
from oracles.statistics import assert_mean

NUM_DRAWS = 40_000


def random_walk(backend):
    """A random-walk Metropolis chain by the base that the documentation names."""
    samplers = importlib.import_module(f"{backend.ebm.__name__}.sampling.samplers")
    if backend.name == "numpyro":
        import jax
        import jax.numpy as jnp

        @dataclasses.dataclass(frozen=True, kw_only=True)
        class RandomWalk(samplers.Chain):
            num_steps: int = 200
            step_size: float = 1.5

            def check(self, energy):
                if energy.is_discrete:
                    raise TypeError(f"sampler: RandomWalk() needs real values, and {type(energy).__name__} is discrete")

            def init(self, energy, value):
                return value

            def advance(self, rng_key, energy, carry, num_steps, tuning):
                def step(value, key):
                    key_move, key_accept = jax.random.split(key)
                    proposal = value + self.step_size * jax.random.normal(key_move, value.shape, value.dtype)
                    gain = energy.unnormalized_log_prob(proposal) - energy.unnormalized_log_prob(value)
                    accepted = jnp.log(jax.random.uniform(key_accept, gain.shape, value.dtype)) < gain
                    return jnp.where(accepted[..., None], proposal, value), None

                return jax.lax.scan(step, carry, jax.random.split(rng_key, num_steps))[0]

            def value(self, energy, carry):
                return carry

    else:
        import torch

        @dataclasses.dataclass(frozen=True, kw_only=True)
        class RandomWalk(samplers.Chain):
            num_steps: int = 200
            step_size: float = 1.5

            def check(self, energy):
                if energy.is_discrete:
                    raise TypeError(f"sampler: RandomWalk() needs real values, and {type(energy).__name__} is discrete")

            def init(self, energy, value):
                return value

            def advance(self, energy, carry, num_steps, tuning):
                for _ in range(num_steps):
                    proposal = carry + self.step_size * torch.randn_like(carry)
                    gain = energy.unnormalized_log_prob(proposal) - energy.unnormalized_log_prob(carry)
                    accepted = torch.rand_like(gain).log() < gain
                    carry = torch.where(accepted[..., None], proposal, carry)
                return carry

            def value(self, energy, carry):
                return carry

    return RandomWalk()


def machine(backend, **options):
    return make(backend, "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM"), **options)


def test_own_sampler_in_sample(backend):
    distribution = machine(backend, sampler=random_walk(backend))
    draws = backend.sample(distribution, 0, (20_000,))
    assert_mean(draws, backend.numpy(distribution.mean))
    second = backend.numpy(distribution.variance) + backend.numpy(distribution.mean) ** 2
    assert_mean(draws**2, second)


def test_own_sampler_in_run_chain(backend):
    distribution, sampler = machine(backend), random_walk(backend)
    for options in ({"sampler": sampler}, {}):
        target = distribution if options else machine(backend, sampler=sampler)
        draws = backend.run_chain(target, 0, 2, num_warmup=100, thinning=20, num_chains=20_000, **options)
        assert_mean(draws[:, -1], backend.numpy(distribution.mean))


def test_own_sampler_in_contrastive_criteria(backend):
    """After 200 steps the negative samples are the model's: CD is the gradient of the likelihood."""
    points = backend.array(np.tile([[0.5, -1.0, 2.0]], (20_000, 1)))
    base = machine(backend, sampler=random_walk(backend))
    criteria = backend.objectives
    for criterion, chains in (
        (criteria.ContrastiveDivergence, ()),
        (criteria.PersistentContrastiveDivergence, (points,)),
    ):
        starts = [chain + 0 for chain in chains]
        got = backend.stochastic(criterion, base, *starts, num_steps=200).gradient(points)
        expected = -(0.5 - backend.numpy(base.mean)[0]) / backend.numpy(base.scale)[0] ** 2
        deviation = math.sqrt(backend.numpy(base.variance)[0]) / backend.numpy(base.scale)[0] ** 2
        assert abs(backend.numpy(got["visible_bias"])[0] - expected) < 4.5 * deviation / math.sqrt(20_000)


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_own_sampler_starts_the_reverse_chains_of_bounds(backend):
    energy = backend.distributions.NeuralEnergy(
        lambda v: 0.5 * ((v - 1) ** 2).sum(-1), (2,), sampler=random_walk(backend)
    )
    options = {"num_chains": 500, "num_temperatures": 100}
    keys = []
    if backend.name == "numpyro":
        import jax

        keys = [jax.random.key(0)]
    with pytest.warns(UserWarning, match="upper is an estimate and no bound"):
        bounds = backend.infer.log_partition_bounds(*keys, energy, **options)
    assert not bounds.exact_start
    assert abs(float(bounds.lower) - math.log(2 * math.pi)) < 0.1
    assert abs(float(bounds.upper) - math.log(2 * math.pi)) < 0.1


def test_own_sampler_is_asked_whether_it_suits(backend):
    with pytest.raises(TypeError, match=r"RandomWalk\(\) needs real values"):
        make(backend, "BernoulliRBM", parameters("BernoulliRBM"), sampler=random_walk(backend))


def test_a_sampler_without_transitions_draws_but_makes_no_chain(backend):
    """Two methods are a sampler; where transitions are asked for, the error names the others."""

    class Zeros:
        def check(self, energy):
            pass

        def sample(self, *arguments):
            energy, shape = arguments[-2:]
            return energy.initial(*arguments[:-2], shape) * 0

    distribution = machine(backend, sampler=Zeros())
    np.testing.assert_array_equal(backend.sample(distribution, 0, (3,)), np.zeros((3, 3)))
    assert type(distribution.chain).__name__ == "Gibbs"
    with pytest.raises(TypeError, match="init, tune, advance and value"):
        backend.run_chain(distribution, 0, 3, sampler=Zeros())


def own_estimator(backend):
    """Importance sampling from a wide normal distribution."""
    if backend.name == "numpyro":
        import jax
        import jax.numpy as jnp

        @jax.tree_util.register_pytree_node_class
        class FromNormal:
            def prepare(self, energy):
                if energy.is_discrete:
                    raise TypeError("log_partition: FromNormal needs real values")
                return self

            def weighted_samples(self, energy):
                shape = (NUM_DRAWS, *energy.batch_shape, *energy.event_shape)
                samples = 2 * jax.random.normal(jax.random.key(0), shape, energy.dtype)
                log_density = -0.125 * (samples**2).sum(-1) - energy.event_shape[0] * math.log(
                    2 * math.sqrt(2 * math.pi)
                )
                log_weights = energy.unnormalized_log_prob(samples) - log_density
                total = jax.scipy.special.logsumexp(log_weights, axis=0)
                return total - math.log(NUM_DRAWS), samples, jnp.exp(log_weights - total)

            def tree_flatten(self):
                return (), None

            @classmethod
            def tree_unflatten(cls, static, traced):
                return cls()

    else:
        import torch

        class FromNormal:
            def prepare(self, energy):
                if energy.is_discrete:
                    raise TypeError("log_partition: FromNormal needs real values")
                return self

            def weighted_samples(self, energy):
                shape = (NUM_DRAWS, *energy.batch_shape, *energy.event_shape)
                generator = torch.Generator(energy.device).manual_seed(0)
                samples = 2 * torch.randn(shape, dtype=energy.dtype, device=energy.device, generator=generator)
                log_density = -0.125 * (samples**2).sum(-1) - energy.event_shape[0] * math.log(
                    2 * math.sqrt(2 * math.pi)
                )
                log_weights = energy.unnormalized_log_prob(samples) - log_density
                total = torch.logsumexp(log_weights, 0)
                return total - math.log(NUM_DRAWS), samples, torch.exp(log_weights - total)

    return FromNormal()


def test_own_estimator_normalises(backend):
    """Its value, and -E_model[grad F] from its weighted samples: |z| < 4.5 at standard errors below 0.02."""
    p = parameters("GaussianBernoulliRBM")
    exact, estimated = machine(backend), machine(backend, log_partition=own_estimator(backend))
    assert estimated.is_normalized
    weights = backend.numpy(estimated.normaliser.estimator.weighted_samples(estimated)[2])
    standard_error = math.sqrt((weights**2).sum() - 1 / NUM_DRAWS)
    assert standard_error < 0.02
    assert abs(float(estimated.log_partition) - float(exact.log_partition)) < 4.5 * standard_error

    def mean_log_prob(bias, **options):
        arguments = {**p.arguments("GaussianBernoulliRBM")}
        arrays = {name: backend.array(value) for name, value in arguments.items()} | {"visible_bias": bias}
        distribution = backend.distributions.GaussianBernoulliRBM(**arrays, **options)
        return distribution.log_prob(backend.array(np.zeros((1, 3)))).mean()

    bias = backend.array(p.visible_bias)
    (truth,) = backend.grad(mean_log_prob, bias)
    (got,) = backend.grad(lambda b: mean_log_prob(b, log_partition=own_estimator(backend)), bias)
    spread = np.sqrt(backend.numpy(exact.variance)) / p.scale**2
    assert np.all(np.abs(got - truth) < 4.5 * 2 * spread * standard_error)


def test_own_estimator_is_asked_whether_it_suits(backend):
    with pytest.raises(TypeError, match="FromNormal needs real values"):
        make(backend, "BernoulliRBM", parameters("BernoulliRBM"), log_partition=own_estimator(backend))
