"""The functional transitions: exact draws of asymmetric energies stay what they are, and chains come from far away.

Gates as in ``oracles.statistics``. Chains are independent, so their ends are independent draws.
"""

import dataclasses
import functools
import importlib

import numpy as np
import pytest

from backends import except_numpyro, pairs
from families.cases import make, parameters
from families.test_energies import plane_moments
from families.zoo import MACHINES
from oracles.statistics import MAX_Z, assert_mean, assert_moments

NUM_CHAINS = 25_000
#: Step, its options, and how many transitions it gets.
STEPS = {
    "adjusted Langevin": ("adjusted_langevin_step", {"step_size": 0.7}, 150),
    "preconditioned Langevin": ("adjusted_langevin_step", {"step_size": 0.7, "scale": [[1.3, 0.8]]}, 150),
    "Hamiltonian": ("hamiltonian_step", {"step_size": 0.4, "num_leapfrog": 5}, 40),
    "Hamiltonian without jitter": ("hamiltonian_step", {"step_size": 0.4, "num_leapfrog": 3, "jitter": 0.0}, 60),
    "preconditioned Hamiltonian": (
        "hamiltonian_step",
        {"step_size": 0.4, "num_leapfrog": 3, "jitter": 1.0, "scale": [[1.3, 0.8]]},
        80,
    ),
    "underdamped": ("underdamped_step", {"step_size": 0.5, "friction": 1.0}, 150),
    "underdamped, long": ("underdamped_step", {"step_size": 0.4, "friction": 0.5, "num_leapfrog": 3}, 60),
    "block Gibbs": ("block_gibbs_step", {}, 60),
}


def model(backend, name):
    """An energy of the plane, its mean and its covariance."""
    if name in MACHINES:
        return MACHINES[name].make(backend, log_partition=None), *plane_moments(backend.name, name)[1:]
    distribution = make(backend, name, parameters(name, visible=2, hidden=3, seed=5))
    return distribution, backend.numpy(distribution.mean), backend.numpy(distribution.covariance_matrix)


def advance(backend, step, target, start, num_steps, seed=0, **options):
    """Positions after ``num_steps`` transitions, and the mean acceptance probability."""
    options = {key: backend.array(value) if key == "scale" else value for key, value in options.items()}
    steps = backend.infer.steps
    transition = getattr(steps, step)
    start = backend.array(start)
    if backend.name == "pyro":
        import torch

        torch.manual_seed(seed)
        state = (steps.init_underdamped if step == "underdamped_step" else steps.init)(target, start)
        total = 0.0
        for _ in range(num_steps):
            state, info = transition(state, target, **options)
            total += float(info.accept_prob.mean())
        return backend.numpy(state.position), total / num_steps
    import jax

    @jax.jit
    def run(target, start, key):
        key, key_init = jax.random.split(key)
        begin = functools.partial(steps.init_underdamped, key_init) if step == "underdamped_step" else steps.init

        def body(state, key):
            state, info = transition(key, state, target, **options)
            return state, info.accept_prob.mean()

        state, accept = jax.lax.scan(body, begin(target, start), jax.random.split(key, num_steps))
        return state.position, accept.mean()

    position, accept = run(target, start, jax.random.key(seed))
    return backend.numpy(position), float(accept)


def chain_of(backend, kind):
    """A Markov chain of the functional transition of this kind."""
    step, options, _ = STEPS[kind]
    options = {key: backend.array(value) if key == "scale" else value for key, value in options.items()}
    steps, begins_with_key = backend.infer.steps, backend.name == "numpyro" and step == "underdamped_step"
    begin = steps.init_underdamped if step == "underdamped_step" else steps.init

    @dataclasses.dataclass(frozen=True)
    class Transitions(importlib.import_module(f"{backend.ebm.__name__}.sampling.samplers").Chain):
        def check(self, energy):
            pass

        def init(self, energy, value):
            if begins_with_key:
                import jax

                return begin(jax.random.key(1), energy, value)
            return begin(energy, value)

        def advance(self, *arguments):
            *key, energy, carry, num_steps, _ = arguments
            assert num_steps == 1
            return getattr(steps, step)(*key, carry, energy, **options)[0]

        def value(self, energy, carry):
            return carry.position

    return Transitions()


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("name", ["GaussianBernoulliRBM", pytest.param("mcRBM", marks=pytest.mark.slow)])
def test_no_transition_drifts(backend, name, kind):
    """From exact draws no moment moves, at step sizes that refuse many proposals."""
    backend.check_kernel(chain_of(backend, kind), model(backend, name)[0])


def standard_normal(backend, scale=1.0):
    """A machine without couplings: ``Normal(0, scale)``."""
    return backend.distributions.GaussianBernoulliRBM(backend.array(np.zeros((2, 1))), scale=backend.array(scale))


@pytest.mark.parametrize(
    *pairs(STEPS, slow=except_numpyro(STEPS, ["preconditioned Hamiltonian", "block Gibbs"]), name="kind"),
    indirect=["backend"],
)
def test_noise_and_step_never_decouple(backend, kind):
    """Without couplings at unit scale every exact chain has variance 1."""
    step, options, num_steps = STEPS[kind]
    start = 3 * np.ones((NUM_CHAINS, 2))
    draws, _ = advance(backend, step, standard_normal(backend), start, num_steps, **options)
    assert_moments(draws, np.zeros(2), np.eye(2))


@pytest.mark.parametrize("step_size", [0.9, 0.45])
def test_unadjusted_langevin_has_its_documented_bias(backend, step_size):
    """Variance ``s^2 / (1 - (h / 2s)^2)``: a bias of 39 % at step 0.9 and of 8 % at 0.45."""
    scale = 0.85
    target = standard_normal(backend, scale)
    start = np.zeros((2 * NUM_CHAINS, 2))
    draws, accept = advance(backend, "unadjusted_langevin_step", target, start, 150, step_size=step_size)
    expected = scale**2 / (1 - (step_size / (2 * scale)) ** 2)
    assert accept == 1
    assert_moments(draws, np.zeros(2), expected * np.eye(2))
    assert (expected - scale**2) / scale**2 > 4.5 * np.sqrt(2 / len(draws)), "the bias could not be seen"


@pytest.mark.slow
def test_unadjusted_bias_shrinks_linearly_with_half_the_square_of_the_step(backend):
    """On an energy that is not Gaussian: a quarter of ``h^2 / 2`` has about a quarter of the variance's bias."""
    target, mean, covariance = model(backend, "mcRBM")
    start = mean + np.random.default_rng(1).normal(size=(6 * NUM_CHAINS, 2))
    biases, errors = [], []
    for step_size in (0.6, 0.3):
        draws, _ = advance(backend, "unadjusted_langevin_step", target, start, 80, step_size=step_size)
        squares = ((draws - mean) ** 2).sum(1)
        biases.append(squares.mean() - np.trace(covariance))
        errors.append(squares.std() / np.sqrt(len(draws)))
    assert biases[0] > 10 * errors[0]
    error = np.hypot(errors[0], 4 * errors[1])
    assert abs(biases[0] - 4 * biases[1]) < MAX_Z * error + 0.3 * biases[0]


def test_a_score_of_the_users_is_used(backend):
    """A target of two functions: the chain is exact whatever the score says, and only the acceptance suffers."""
    calls = []

    def score(position):
        calls.append(1)
        return -0.8 * position  # a wrong one, on purpose

    target = backend.infer.steps.Target(lambda x: -0.5 * (x**2).sum(-1), score)
    start = np.random.default_rng(1).normal(size=(NUM_CHAINS, 2)) + 1.0
    if backend.name == "numpyro":
        import jax

        state = backend.infer.steps.init(target, backend.array(start))
        step = jax.jit(lambda key, state: backend.infer.steps.adjusted_langevin_step(key, state, target, 0.9))
        for key in jax.random.split(jax.random.key(0), 40):
            state, _ = step(key, state)
        draws = backend.numpy(state.position)
    else:
        draws, _ = advance(backend, "adjusted_langevin_step", target, start, 40, step_size=0.9)
    assert calls
    assert_mean(draws, 0.0)
    assert_mean(draws**2, 1.0)


def test_the_default_score_is_the_gradient(backend):
    target = backend.infer.steps.Target(lambda x: -((x - 1.0) ** 4).sum(-1))
    points = np.random.default_rng(0).normal(size=(5, 3))
    state = backend.infer.steps.init(target, backend.array(points))
    np.testing.assert_allclose(backend.numpy(state.score), -4 * (points - 1) ** 3, rtol=1e-12)
    np.testing.assert_allclose(backend.numpy(state.log_density), -((points - 1) ** 4).sum(1), rtol=1e-12)


def test_a_divergence_is_rejected_and_reported(backend):
    target = backend.infer.steps.Target(lambda x: -((10 * x) ** 4).sum(-1))
    state = backend.infer.steps.init(target, backend.array(np.full((4, 1), 0.01)))
    options = {"step_size": 3.0, "num_leapfrog": 4, "jitter": 0.0}
    if backend.name == "numpyro":
        import jax

        after, info = backend.infer.steps.hamiltonian_step(jax.random.key(0), state, target, **options)
    else:
        after, info = backend.infer.steps.hamiltonian_step(state, target, **options)
    assert backend.numpy(info.diverging).all()
    assert not backend.numpy(info.accepted).any()
    np.testing.assert_array_equal(backend.numpy(after.position), backend.numpy(state.position))


def test_an_unadjusted_chain_that_leaves_all_bounds_is_reported(backend):
    target = backend.infer.steps.Target(lambda x: -(x**4).sum(-1))
    state = backend.infer.steps.init(target, backend.array(np.full((4, 1), 50.0)))
    for seed in range(12):
        if backend.name == "numpyro":
            import jax

            state, info = backend.infer.steps.unadjusted_langevin_step(jax.random.key(seed), state, target, 3.0)
        else:
            state, info = backend.infer.steps.unadjusted_langevin_step(state, target, 3.0)
    assert backend.numpy(info.diverging).all()
