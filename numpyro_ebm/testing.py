"""The test case for energies and kernels of your own, which this package's families and kernels pass too.

:func:`check_energy` holds a distribution against automatic differentiation, numerical integrals or sums over states,
identities that draws of any density fulfil, and its own declared capabilities. :func:`check_kernel` starts chains from
exact draws and looks whether their moments drift. Both raise ``AssertionError`` with all that they found wrong.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to
from numpyro.infer import MCMC
from numpyro.infer.mcmc import MCMCKernel

from _ppl_ebm.checks import check_count, check_positive_int
from _ppl_ebm.integrals import Array
from _ppl_ebm.testing import NUM_STEPS, Point, Report, check_drift, check_model
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.sampling.protocols import MarkovChain
from numpyro_ebm.sampling.samplers import Ancestral, Exact
from numpyro_ebm.sampling.types import Key, PyTree

__all__ = ["check_energy", "check_kernel"]

_CHUNK = 2**15  # values at a time


def check_energy(
    rng_key: Key, distribution: EnergyDistribution, *, num_draws: int = 20_000, tolerance: float | None = None
) -> None:
    """Hold a distribution against everything that its energy implies.

    - Score and Laplacian against automatic differentiation of the energy; all functions of values under ``jit``,
      ``vmap``, ``expand`` and in a batch with a second model, whose parameters are 5 % smaller.
    - The exact normaliser, mean and variance against quadrature in up to three dimensions, or against the sum over all
      states where these are at most 2^16. (Where the integral does not settle, a warning says so.)
    - Draws of ``sample`` and ``ancestral_sample`` by Stein's identities ``E[score] = 0`` and ``E[x score'] = -1``, or
      by those of binary units given all others, and by the mean and covariance of that integral or sum.
    - Capabilities: a Gibbs sweep leaves exact draws as they are distributed, and is reversible; the annealing path ends
      at the energy itself, and starts at ``base_log_partition`` and at ``initial``; conditional log odds are those of
      the energy; a score is continuous if it is said to be.

    Monte Carlo gates are at 4.5 standard errors. Chains that have not converged fail them: give a longer ``sampler``.

    :param rng_key: a JAX PRNG key.
    :param distribution: one model, without batch dimensions.
    :param num_draws: draws of each kind; 0 compares functions alone.
    :param tolerance: of functions, relative and absolute; default: the root of the machine's precision.
    :raises AssertionError: with a line for everything that disagrees: what, by how much, and what was admitted.
    :raises ValueError: for a distribution with batch dimensions.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro.distributions import constraints
    >>> from numpyro_ebm import EnergyDistribution, GaussianRBM
    >>> from numpyro_ebm.testing import check_energy
    >>> check_energy(jax.random.key(0), GaussianRBM(jnp.array([[0.5], [0.3]])))
    >>> class Quartic(EnergyDistribution):
    ...     parameter_dims = {"strength": ("visible",)}
    ...     arg_constraints = {"strength": constraints.independent(constraints.positive, 1)}
    ...     support = constraints.real_vector
    ...     def __init__(self, strength, **options):
    ...         super().__init__({"strength": strength}, **options)
    ...     def _energy(self, value):
    ...         return jnp.sum(self.strength * value**4)
    ...     def _score(self, value):
    ...         return -self.strength * value**3
    >>> check_energy(jax.random.key(0), Quartic(jnp.ones(1)), num_draws=0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: Quartic: 2 found wrong
    - laplacian against automatic differentiation of the energy: expected ...
    - score against automatic differentiation of the energy: expected ...
    """
    _check_single("check_energy", distribution)
    check_count("num_draws", num_draws)
    report = Report(type(distribution).__name__)
    value = jax.eval_shape(lambda: distribution.initial(rng_key, (2,)))
    energy = jax.eval_shape(distribution.energy, value)
    report.equal("initial(): shape", value.shape, (2, *distribution.event_shape))
    report.equal("energy: shape and type", (energy.shape, energy.dtype), ((2,), jnp.dtype(distribution.dtype)))
    check_model(report, _Model(rng_key, distribution, tolerance), num_draws)
    report.finish()


def check_kernel(
    rng_key: Key,
    kernel: MCMCKernel | MarkovChain,
    distribution: EnergyDistribution,
    *,
    site: str | None = None,
    num_chains: int = 20_000,
    num_steps: tuple[int, ...] = NUM_STEPS,
    num_warmup: int = 0,
) -> None:
    """Whether a kernel leaves a distribution invariant: chains start from exact draws, and no moment may drift.

    It tells a wrong kernel from one that mixes slowly, for it does not depend on mixing. Means of ``x_i``,
    ``x_i x_j`` and of the energy over all chains are compared with those at the start, at 4.5 standard errors of the
    change. Kernels whose state is more than a position (tempering) start outside their stationary distribution, and
    cannot be checked so.

    :param rng_key: a JAX PRNG key.
    :param kernel: a kernel for :class:`numpyro.infer.MCMC`, or a Markov chain such as ``Gibbs()``. It moves as it is
        configured: give it a step size.
    :param distribution: its stationary distribution, with an exact sampler and without batch dimensions.
    :param site: the site of the kernel's model whose posterior ``distribution`` is; ``None`` for kernels of a potential
        function of a bare value, and for Markov chains.
    :param num_chains: independent chains.
    :param num_steps: numbers of transitions after which moments are compared.
    :param num_warmup: transitions of a warm-up before, after which chains start anew from other exact draws, with what
        they have learned: so that a learned step size and preconditioner are tested too.
    :raises AssertionError: with every moment that drifts, or if no chain has moved.
    :raises TypeError: for a distribution without an exact sampler, or what is no kernel.

    >>> import jax, jax.numpy as jnp, numpyro
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> from numpyro_ebm.infer import MALA, Gibbs
    >>> from numpyro_ebm.testing import check_kernel
    >>> rbm = GaussianBernoulliRBM(jnp.array([[1.0], [-1.0]]))
    >>> check_kernel(jax.random.key(0), Gibbs(), rbm)
    >>> kernel = MALA(lambda: numpyro.sample("v", rbm), step_size=1.2)
    >>> check_kernel(jax.random.key(0), kernel, rbm, site="v")
    """
    _check_single("check_kernel", distribution)
    check_positive_int("num_chains", num_chains)
    check_count("num_warmup", num_warmup)
    if not distribution.has_exact_sampler:
        raise TypeError(
            f"distribution: check_kernel expected one with an exact sampler, got {type(distribution).__name__}"
        )
    report = Report(f"{type(kernel).__name__} on {type(distribution).__name__}")
    key_start, key_again, key_run = jax.random.split(rng_key, 3)
    keys = (key_start, key_again) if num_warmup else (key_start,)
    starts = [Exact().sample(key, distribution, (num_chains,)) for key in keys]
    if isinstance(kernel, MCMCKernel):
        ends = _run_kernel(key_run, kernel, distribution, starts, site, num_steps, num_warmup)
    elif isinstance(kernel, MarkovChain):
        ends = _run_chain(key_run, kernel, distribution, starts, num_steps, num_warmup)
    else:
        raise TypeError(f"kernel: check_kernel expected a kernel of MCMC or a Markov chain, got {kernel!r}")
    points = {0: starts[-1], **ends}
    energies = {steps: np.asarray(_energy(distribution, value), float) for steps, value in points.items()}
    found = {steps: Point(_rows(value), energies[steps]) for steps, value in points.items()}
    moved = any((point.values != found[0].values).any() for point in found.values())
    report.equal(f"a chain that moves in {max(num_steps)} transitions", moved, True)
    for steps in num_steps:
        check_drift(report, f"after {steps} transition{'s' * (steps > 1)}", found[0], found[steps])
    report.finish()


def _run_kernel(
    rng_key: Key,
    kernel: MCMCKernel,
    distribution: EnergyDistribution,
    starts: list[jax.Array],
    site: str | None,
    num_steps: tuple[int, ...],
    num_warmup: int,
) -> dict[int, jax.Array]:
    """Values after these numbers of transitions, by the host's driver."""
    unconstrain = (lambda value: value) if distribution.is_discrete else biject_to(distribution.support).inv
    params = [unconstrain(start) if site is None else {site: unconstrain(start)} for start in starts]
    options = {"num_chains": len(starts[0]), "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(kernel, num_warmup=num_warmup, num_samples=max(num_steps), **options)
    if num_warmup:
        mcmc.warmup(rng_key, init_params=params[0])
        state = mcmc.post_warmup_state._replace(**{kernel.sample_field: params[1]})
        mcmc.post_warmup_state = jax.vmap(lambda state: kernel.refresh(state, (), {}))(state)
        mcmc.run(mcmc.post_warmup_state.rng_key)
    else:
        mcmc.run(rng_key, init_params=params[0])
    samples = mcmc.get_samples(group_by_chain=True)
    values = samples if site is None else samples[site]
    return {steps: values[:, steps - 1] for steps in num_steps}


def _run_chain(
    rng_key: Key,
    chain: MarkovChain,
    distribution: EnergyDistribution,
    starts: list[jax.Array],
    num_steps: tuple[int, ...],
    num_warmup: int,
) -> dict[int, jax.Array]:
    """Values after these numbers of transitions, by the chain's own methods."""
    chain.check(distribution)
    key_tune, *keys = jax.random.split(rng_key, 1 + max(num_steps))
    tuning = None
    if num_warmup:
        tuning = jax.jit(chain.tune, static_argnums=3)(key_tune, distribution, starts[0], num_warmup)[1]
    advance = jax.jit(chain.advance, static_argnums=3)
    carry, ends = chain.init(distribution, starts[-1]), {}
    for count, key in enumerate(keys, start=1):
        carry = advance(key, distribution, carry, 1, tuning)
        ends[count] = chain.value(distribution, carry)
    return {steps: ends[steps] for steps in num_steps}


def _check_single(owner: str, distribution: EnergyDistribution) -> None:
    if distribution.batch_shape:
        raise ValueError(f"distribution: {owner} expected no batch dimensions, got {distribution.batch_shape}")


class _Model:
    """A distribution as :class:`_ppl_ebm.testing.Model`: functions of rows of NumPy arrays."""

    def __init__(self, rng_key: Key, distribution: EnergyDistribution, tolerance: float | None = None) -> None:
        self.distribution, self._key = distribution, rng_key
        precision = float(jnp.finfo(distribution.dtype).eps)
        self.size, self.tolerance = math.prod(distribution.event_shape), tolerance or math.sqrt(precision)
        self.is_discrete, self.capabilities = distribution.is_discrete, distribution.capabilities
        self.is_constrained = not self.is_discrete and distribution.unconstrained is not distribution

    def _next_key(self) -> Key:
        self._key, key = jax.random.split(self._key)
        return key

    def _value(self, rows: Array) -> jax.Array:
        value = jnp.asarray(rows.reshape(-1, *self.distribution.event_shape))
        return value.astype(int if self.is_discrete else self.distribution.dtype)

    def initial(self, count: int) -> Array:
        return _rows(_initial(self.distribution, self._next_key(), count))

    def inside(self, values: Array) -> np.ndarray:
        return np.asarray(self.distribution.support(self._value(values)))

    def energy(self, values: Array) -> Array:
        return _in_chunks(_energy, self.distribution, self._value(values))

    def laplacian(self, values: Array) -> Array:
        return _in_chunks(_laplacian, self.distribution, self._value(values))

    def log_density(self, positions: Array) -> Array:
        return _in_chunks(_log_density, self.distribution, self._value(positions))

    def score(self, positions: Array) -> Array:
        return _rows(_in_chunks(_score, self.distribution, self._value(positions)))

    def conditional_logits(self, values: Array) -> Array:
        return _rows(_logits(self.distribution, self._value(values)))

    def positions(self, values: Array) -> Array:
        return _rows(self.distribution.unconstrained.from_value(self._value(values)))

    def comparisons(self, values: Array) -> dict[str, tuple[PyTree, PyTree]]:
        distribution, value = self.distribution, self._value(values)
        single = _functions(distribution, value)
        others = {"energy against itself without jit": distribution.energy(value), **_alternatives(distribution, value)}
        found = {what: (single[what.split()[0]], other) for what, other in others.items()}
        return found | _compared_in_a_batch(distribution, value)

    def draws(self, method: str, count: int) -> Array:
        copies: Any = self.distribution.expand((2,))
        if method == "ancestral_sample":
            copies = copies.replace(sampler=Ancestral())
        return np.asarray(copies.sample(self._next_key(), (count,)), float).reshape(count, 2, self.size)

    def swept(self, values: Array) -> Array:
        return _rows(_sweep(self.distribution, self._next_key(), self._value(values)))

    def log_partition(self) -> float:
        return float(self.distribution.with_log_partition("auto").log_partition)

    def base_log_partition(self) -> float:
        return float(self.distribution.base_log_partition)

    def moments(self) -> tuple[Array, Array] | None:
        try:
            return jax.tree.map(np.ravel, _moments(self.distribution))
        except NotImplementedError:
            return None

    def annealed(self, inverse_temperature: float) -> "_Model":
        path: Any = self.distribution.at_inverse_temperature(inverse_temperature)
        return _Model(self._next_key(), path, self.tolerance)


def _rows(value: PyTree) -> Array:
    array = np.asarray(value, float)
    return array.reshape(len(array), -1)


def _in_chunks(function: Any, distribution: EnergyDistribution, value: jax.Array) -> Array:
    """``function`` of many values, compiled for one size."""
    count, size = len(value), min(_CHUNK, len(value))
    padded = jnp.pad(value, [(0, -count % size), *[(0, 0)] * (value.ndim - 1)], mode="edge")
    parts = [np.asarray(function(distribution, part), float) for part in jnp.split(padded, len(padded) // size)]
    return np.concatenate(parts)[:count]


@functools.partial(jax.jit, static_argnums=2)
def _initial(distribution: EnergyDistribution, rng_key: Key, count: int) -> jax.Array:
    return distribution.initial(rng_key, (count,))


@jax.jit
def _energy(distribution: EnergyDistribution, value: jax.Array) -> jax.Array:
    return distribution.energy(value)


@jax.jit
def _laplacian(distribution: EnergyDistribution, value: jax.Array) -> jax.Array:
    return distribution.laplacian(value)


@jax.jit
def _log_density(distribution: EnergyDistribution, position: jax.Array) -> jax.Array:
    return distribution.unconstrained.unnormalized_log_prob(position)


@jax.jit
def _score(distribution: EnergyDistribution, position: jax.Array) -> jax.Array:
    return distribution.unconstrained.score(position)


@jax.jit
def _logits(distribution: EnergyDistribution, value: jax.Array) -> jax.Array:
    return distribution.conditional_logits(value)


@jax.jit
def _sweep(distribution: EnergyDistribution, rng_key: Key, value: jax.Array) -> jax.Array:
    return distribution.gibbs_step(rng_key, value)


@jax.jit
def _moments(distribution: EnergyDistribution) -> tuple[jax.Array, jax.Array]:
    return distribution.mean, distribution.variance


@jax.jit
def _functions(distribution: EnergyDistribution, value: jax.Array) -> dict[str, jax.Array]:
    """Functions of values."""
    found = {"energy": distribution.energy(value)}
    if distribution.is_discrete:
        return found
    return found | {"score": distribution.score(value), "laplacian": distribution.laplacian(value)}


@jax.jit
def _alternatives(distribution: EnergyDistribution, value: jax.Array) -> dict[str, jax.Array]:
    """What the same functions should be, by other ways."""
    found = {
        "energy against -unnormalized_log_prob": -distribution.unnormalized_log_prob(value),
        "energy against itself under vmap": jax.vmap(distribution.energy)(value),
        "energy against itself under expand": distribution.expand((2,)).energy(value[:, None])[:, 1],
    }
    if distribution.has_annealing:
        end = distribution.at_inverse_temperature(1.0)
        found["energy against that at inverse temperature 1"] = end.energy(value)
    if not distribution.is_discrete:
        log_density = lambda flat: -distribution.energy(flat.reshape(distribution.event_shape))
        flat, by = value.reshape(len(value), -1), "against automatic differentiation of the energy"
        found[f"score {by}"] = jax.vmap(jax.grad(log_density))(flat).reshape(value.shape)
        found[f"laplacian {by}"] = jax.vmap(lambda v: jnp.trace(jax.hessian(log_density)(v)))(flat)
    return found


def _compared_in_a_batch(distribution: EnergyDistribution, value: jax.Array) -> dict[str, tuple[PyTree, PyTree]]:
    """Two models in a batch, and under ``vmap``, against each alone; nothing for a family without parameters."""
    bare = distribution.with_log_partition(None)
    given = _parameters(bare)
    if not given:
        return {}
    smaller = _changed(given, lambda array: 0.95 * array)
    pair = bare.replace(**_changed(given, lambda array: jnp.stack([array, 0.95 * array])))
    leaves, structure = jax.tree.flatten(bare)
    others = jax.tree.leaves(bare.replace(**smaller))
    stacked = jax.tree.unflatten(structure, [jnp.stack(both) for both in zip(leaves, others, strict=True)])
    models = [bare, jax.tree.unflatten(structure, others)]
    alone = jax.tree.map(lambda *both: jnp.stack(both, 1), *(_functions(model, value) for model in models))
    together = _functions(pair, value[:, None])
    found = {f"{name} of a batch of two models": (together[name], alone[name]) for name in alone}
    found["energy under vmap over two models"] = (jax.vmap(_energy, (0, None), 1)(stacked, value), alone["energy"])
    if distribution.has_exact_partition and distribution.with_log_partition("auto").is_normalized:
        exact = [model.with_log_partition("auto").log_partition for model in (pair, *models)]
        found["log_partition of a batch of two models"] = (exact[0], jnp.stack(exact[1:]))
    return found


def _parameters(distribution: EnergyDistribution) -> dict[str, PyTree]:
    """Parameters (in mappings, too) as arguments of the constructor."""
    names = distribution.parameters()
    arguments = distribution.arguments().items()
    return {name: value for name, value in arguments if name in names or isinstance(value, Mapping)}


def _changed(given: Mapping[Any, Any], change: Callable[[jax.Array], jax.Array]) -> dict[Any, Any]:
    """Parameters, in mappings too, changed."""
    return {
        name: _changed(value, change) if isinstance(value, Mapping) else change(value) for name, value in given.items()
    }
