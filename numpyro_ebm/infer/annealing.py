"""Annealed importance sampling: a partition function as an estimate, with its error and its gradient."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from numpyro.util import not_jax_tracer
from tqdm.auto import tqdm

from _ppl_ebm.bounds import MAX_Z, check_agreement, check_start, warn_of_estimate
from _ppl_ebm.checks import check_positive_int
from _ppl_ebm.limits import MIN_EFFECTIVE_SIZE
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.sampling import steps
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.protocols import Energy
from numpyro_ebm.sampling.samplers import Exact, chain_ends
from numpyro_ebm.sampling.types import Key, PyTree

_Carry: TypeAlias = tuple[jax.Array, jax.Array]  # log weights and positions
_NUM_PARTS = 20  # of a run that shows its progress
_PILOT_CHAINS = 16
_PILOT_ACCEPT, _PILOT_RATE = 0.8, 0.2  # the pilot's step size follows its mean acceptance probability


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["rng_key"],
    meta_fields=["num_chains", "num_temperatures", "num_leapfrog"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnealedImportanceSampling:
    """Estimator of log Z by annealing from independent units (Neal 2001; Salakhutdinov & Murray 2008).

    Families with hidden units start from themselves without couplings and move by Gibbs sweeps. Others go along the
    geometric path from the standard normal distribution, by jittered Hamiltonian Monte Carlo whose step size at every
    temperature comes from a pilot run, so that the estimate stays unbiased.

    Give it as ``log_partition=`` to a distribution: ``log_prob`` is then normalised by the estimate, and differentiable
    everywhere, with ``-E_model[grad F]`` taken over the same weighted samples. ``exp`` of the estimate is unbiased for
    Z, so the estimate itself is a lower bound on log Z in expectation, and ``log_prob`` an upper bound.

    :param num_chains: independent annealed chains.
    :param num_temperatures: inverse temperatures, equally spaced from 0 to 1, one transition at each.
    :param num_leapfrog: leapfrog steps of a Hamiltonian transition.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model in which the distribution is made: a new
        one in every step of SVI, and always the same in HMC and NUTS, whose target so is a function of the parameters.
    :raises ValueError: for numbers that are not positive integers.
    :raises TypeError: for a discrete family without conditionals.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import BernoulliRBM
    >>> from numpyro_ebm.infer import AnnealedImportanceSampling
    >>> weights = jnp.array([[1.0, -0.5], [0.3, 2.0]])
    >>> estimated = BernoulliRBM(weights, log_partition=AnnealedImportanceSampling(rng_key=jax.random.key(0)))
    >>> bool(abs(estimated.log_partition - BernoulliRBM(weights).log_partition) < 0.05)
    True
    """

    num_chains: int = 100
    num_temperatures: int = 1000
    num_leapfrog: int = 5
    rng_key: Key | None = None

    def __post_init__(self) -> None:
        for name in ("num_chains", "num_temperatures", "num_leapfrog"):
            check_positive_int(name, getattr(self, name))

    def prepare(self, energy: Energy) -> "AnnealedImportanceSampling":
        """This configuration with a key, checked against the distribution that will use it."""
        if energy.is_discrete and not energy.capabilities >= {"annealing", "gibbs_step"}:
            raise TypeError(
                "log_partition: AnnealedImportanceSampling needs real values, or a family with a path to independent "
                f"units and Gibbs sampling along it; {type(energy).__name__} is discrete and has none"
            )
        return dataclasses.replace(self, rng_key=require_key("AnnealedImportanceSampling", self.rng_key))

    def weighted_samples(self, energy: Energy) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Estimate of log Z, the chains' final samples and their normalised weights."""
        key_pilot, key_run = jax.random.split(require_key("AnnealedImportanceSampling", self.rng_key))
        path = _Path(energy)
        step_sizes = _pilot(path, key_pilot, self.num_temperatures, self.num_leapfrog)
        log_weights, samples = _anneal(path, key_run, step_sizes, self.num_chains, self.num_leapfrog)
        total = logsumexp(log_weights, axis=0)
        weights = jnp.exp(log_weights - total[None])
        return path.base_log_partition + total - math.log(self.num_chains), samples, weights


class LogPartitionBounds(NamedTuple):
    """Stochastic bounds on log Z from both ends of an annealing path; every field has the shape ``batch_shape``.

    :param lower: forward estimate, at most log Z in expectation.
    :param upper: reverse estimate, at least log Z in expectation **where the chains started exactly**; else an estimate
        and no bound: from chains that all miss a mode, it and ``lower`` agree on a value that is too small.
    :param lower_standard_error: of ``lower``, over chains (delta method); infinite at an effective size below 10, of
        which no error can be told.
    :param upper_standard_error: of ``upper``, likewise.
    :param lower_effective_sample_size: of the forward weights, at most the number of chains.
    :param upper_effective_sample_size: of the reverse weights.
    :param exact_start: whether the reverse chains started from exact draws; else from ``start`` or from long chains,
        whose distance from the model ``upper`` does not cover.
    """

    lower: jax.Array
    upper: jax.Array
    lower_standard_error: jax.Array
    upper_standard_error: jax.Array
    lower_effective_sample_size: jax.Array
    upper_effective_sample_size: jax.Array
    exact_start: bool


def log_partition_bounds(
    rng_key: Key | None,
    distribution: EnergyDistribution,
    *,
    start: ArrayLike | None = None,
    num_chains: int = 100,
    num_temperatures: int = 1000,
    num_leapfrog: int = 5,
    progress: bool = False,
) -> LogPartitionBounds:
    """Bounds on log Z by annealing forward and in reverse (Neal 2001; Grosse, Ghahramani & Adams 2015).

    Reverse chains start from ``start``, else from exact draws of the distribution where it has them, else from the ends
    of chains of ``num_temperatures`` transitions, and cool down to independent units. Only from exact draws is
    ``upper`` a bound.

    :param rng_key: a JAX PRNG key.
    :param distribution: an energy distribution, as :class:`AnnealedImportanceSampling` takes it.
    :param start: draws to start reverse chains from in place of exact ones, shape ``(n, *batch_shape, *event_shape)``:
        of a tempered run, or data; ``num_chains`` of them are chosen at random.
    :param num_chains: chains in each direction.
    :param num_temperatures: inverse temperatures, equally spaced, one transition at each.
    :param num_leapfrog: leapfrog steps of a Hamiltonian transition.
    :param progress: show tqdm progress bars.
    :raises ValueError: if the two contradict each other (NaN where traced), because the reverse chains did not start
        from the distribution; for a ``start`` of another shape.
    :raises TypeError: for a discrete family without conditionals.

    A warning says so where ``upper`` is no bound because neither exact draws nor ``start`` are there.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> from numpyro_ebm.infer import log_partition_bounds
    >>> rbm = GaussianBernoulliRBM(jnp.array([[1.0, 0.5], [-1.0, 2.0]]))
    >>> bounds = log_partition_bounds(jax.random.key(0), rbm, num_temperatures=200)
    >>> error = 3 * bounds.lower_standard_error, 3 * bounds.upper_standard_error
    >>> bool(bounds.lower - error[0] < rbm.log_partition < bounds.upper + error[1])
    True
    """
    key_forward, key_start, key_reverse = jax.random.split(require_key("log_partition_bounds", rng_key), 3)
    sizes = {"num_chains": num_chains, "num_temperatures": num_temperatures, "num_leapfrog": num_leapfrog}
    AnnealedImportanceSampling(**sizes, rng_key=key_forward).prepare(distribution)
    distribution = lax.stop_gradient(distribution)
    key_pilot, key_run = jax.random.split(key_forward)
    path = _Path(distribution)
    step_sizes = _pilot(path, key_pilot, num_temperatures, num_leapfrog)
    forward = _anneal(path, key_run, step_sizes, num_chains, num_leapfrog, progress)[0]
    exact = start is None and distribution.has_exact_sampler
    values = _reverse_start(key_start, distribution, start, num_chains, num_temperatures)
    reverse = _anneal_in_reverse(path, key_reverse, step_sizes, values, num_leapfrog, progress)
    lower, lower_error, lower_size = _log_mean(forward)
    upper, upper_error, upper_size = _log_mean(-reverse)
    lower, upper = path.base_log_partition + lower, path.base_log_partition - upper
    error = jnp.hypot(lower_error, upper_error)
    if not_jax_tracer(error):
        check_agreement(type(distribution).__name__, np.asarray(lower), np.asarray(upper), np.asarray(error))
    else:
        lower, upper = (jnp.where(lower - upper > MAX_Z * error, jnp.nan, bound) for bound in (lower, upper))
    errors = [
        jnp.where(size < MIN_EFFECTIVE_SIZE, jnp.inf, error)
        for size, error in ((lower_size, lower_error), (upper_size, upper_error))
    ]
    return LogPartitionBounds(lower, upper, errors[0], errors[1], lower_size, upper_size, exact)


def _reverse_start(
    rng_key: Key, distribution: EnergyDistribution, start: ArrayLike | None, num_chains: int, num_temperatures: int
) -> jax.Array:
    """Where reverse chains start: some of ``start``, exact draws, or the ends of chains, of which a warning tells."""
    shape = (num_chains, *distribution.batch_shape)
    if start is not None:
        check_start(jnp.shape(start), (*distribution.batch_shape, *distribution.event_shape))
        draws = distribution.check_value(start, "start")
        rows = jax.random.choice(rng_key, len(draws), (num_chains,), replace=len(draws) < num_chains)
        return draws[rows]
    if distribution.has_exact_sampler:
        return Exact().sample(rng_key, distribution, shape)
    warn_of_estimate(type(distribution).__name__)
    return chain_ends(rng_key, distribution.chain, distribution, shape, num_temperatures)


def _log_mean(log_weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """log of the mean weight over chains, its standard error and the effective sample size."""
    count = len(log_weights)
    total = logsumexp(log_weights, axis=0)
    weights = jnp.exp(log_weights - total[None])
    size = 1 / jnp.sum(weights**2, axis=0)
    return total - math.log(count), jnp.sqrt((1 / size - 1 / count) * count / max(count - 1, 1)), size


@jax.tree_util.register_pytree_node_class
class _Path:
    """Energies from an independent base (inverse temperature 0) to a distribution (1)."""

    def __init__(self, distribution: Energy) -> None:
        self.distribution = distribution

    def tree_flatten(self) -> tuple[tuple[Energy], None]:
        return (self.distribution,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Energy]) -> "_Path":
        return cls(*children)

    @property
    def has_own_base(self) -> bool:
        """Whether the family has a path to independent units; else it is mixed with the standard normal."""
        return "annealing" in self.distribution.capabilities

    @property
    def sweeps(self) -> bool:
        """Whether it moves by Gibbs sweeps; else along the score."""
        return self.distribution.capabilities >= {"annealing", "gibbs_step"}

    @property
    def base_log_partition(self) -> jax.Array:
        if self.has_own_base:
            return self.distribution.base_log_partition
        size = math.prod(self.distribution.event_shape)
        return jnp.full(self.distribution.batch_shape, 0.5 * size * math.log(2 * math.pi), self.distribution.dtype)

    def at(self, inverse_temperature: jax.Array) -> "Energy | _Mixed":
        """The target on the way."""
        if self.has_own_base:
            return self.distribution.at_inverse_temperature(inverse_temperature)
        return _Mixed(self.distribution, inverse_temperature)

    def start(self, rng_key: Key, num_chains: int) -> jax.Array:
        """Exact draws at 0."""
        shape = (num_chains, *self.distribution.batch_shape)
        if self.has_own_base:
            return self.distribution.at_inverse_temperature(0.0).initial(rng_key, shape)
        return jax.random.normal(rng_key, shape + self.distribution.event_shape, self.distribution.dtype)

    def to_value(self, position: jax.Array) -> jax.Array:
        return position if self.has_own_base else self.distribution.unconstrained.to_value(position)

    def from_value(self, value: jax.Array) -> jax.Array:
        return value if self.has_own_base else self.distribution.unconstrained.from_value(value)

    def log_weights(self, num_chains: int) -> jax.Array:
        return jnp.zeros((num_chains, *self.distribution.batch_shape), self.distribution.dtype)

    def move(
        self, rng_key: Key, beta: jax.Array, position: jax.Array, step_size: jax.Array, num_leapfrog: int
    ) -> tuple[jax.Array, jax.Array]:
        """One transition at a temperature: new positions and the mean acceptance probability over chains."""
        if self.sweeps:
            swept = self.distribution.at_inverse_temperature(beta).gibbs_step(rng_key, position)
            return swept, jnp.ones(self.distribution.batch_shape)
        target = self.at(beta)
        state = steps.init(target, position)
        state, info = steps.hamiltonian_step(rng_key, state, target, step_size, num_leapfrog)
        return state.position, info.accept_prob.mean(0)


class _Mixed:
    """The geometric mixture of the standard normal density and another."""

    def __init__(self, distribution: Energy, weight: jax.Array) -> None:
        self.target, self.weight = distribution.unconstrained, weight
        self.axes = tuple(range(-len(distribution.event_shape), 0))

    def energy(self, position: jax.Array) -> jax.Array:
        return -self.unnormalized_log_prob(position)

    def unnormalized_log_prob(self, position: jax.Array) -> jax.Array:
        normal = -0.5 * jnp.sum(position**2, axis=self.axes)
        return (1 - self.weight) * normal + self.weight * self.target.unnormalized_log_prob(position)

    def score(self, position: jax.Array) -> jax.Array:
        return self.weight * self.target.score(position) - (1 - self.weight) * position


@functools.partial(jax.jit, static_argnums=(2, 3))
def _pilot(path: _Path, rng_key: Key, num_temperatures: int, num_leapfrog: int) -> jax.Array:
    """Step sizes at all temperatures but 0, shape ``(num_temperatures, *batch_shape)``; they play no part in Gibbs."""
    distribution = path.distribution
    shape = (num_temperatures, *distribution.batch_shape)
    if path.sweeps:
        return jnp.ones(shape, distribution.dtype)
    key_start, key_run = jax.random.split(rng_key)
    size = max(1, math.prod(distribution.event_shape))

    def transition(carry: PyTree, inputs: PyTree) -> tuple[PyTree, jax.Array]:
        position, log_step = carry
        key, beta = inputs
        position, accept_prob = path.move(key, beta, position, jnp.exp(log_step), num_leapfrog)
        log_step = log_step + _PILOT_RATE * (accept_prob - _PILOT_ACCEPT)
        return (position, log_step), jnp.exp(log_step)

    log_step = jnp.full(distribution.batch_shape, math.log(size**-0.25), distribution.dtype)
    betas = jnp.linspace(0.0, 1.0, num_temperatures + 1, dtype=distribution.dtype)[1:]
    keys = jax.random.split(key_run, num_temperatures)
    return lax.scan(transition, (path.start(key_start, _PILOT_CHAINS), log_step), (keys, betas))[1]


def _anneal(
    path: _Path, rng_key: Key, step_sizes: jax.Array, num_chains: int, num_leapfrog: int, progress: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Log importance weights and final values of ``num_chains`` annealed chains."""
    key_initial, key_run = jax.random.split(rng_key)
    carry = path.log_weights(num_chains), path.start(key_initial, num_chains)
    schedule = _schedule(path, key_run, step_sizes)
    for part in _parts(len(step_sizes), progress, "annealing"):
        carry = _warm(path, carry, [leaf[part] for leaf in schedule], num_leapfrog)
    return carry[0], path.to_value(carry[1])


def _anneal_in_reverse(
    path: _Path, rng_key: Key, step_sizes: jax.Array, values: jax.Array, num_leapfrog: int, progress: bool
) -> jax.Array:
    """Log weights of the reverse chains from ``values``, in the sense of the forward ones."""
    carry = path.log_weights(len(values)), path.from_value(values)
    schedule = [leaf[::-1] for leaf in _schedule(path, rng_key, step_sizes)]
    for part in _parts(len(step_sizes), progress, "in reverse"):
        carry = _cool(path, carry, [leaf[part] for leaf in schedule], num_leapfrog)
    return carry[0]


def _schedule(path: _Path, rng_key: Key, step_sizes: jax.Array) -> tuple[jax.Array, ...]:
    """Keys, inverse temperatures before and after, and step sizes of all transitions."""
    betas = jnp.linspace(0.0, 1.0, len(step_sizes) + 1, dtype=path.distribution.dtype)
    return jax.random.split(rng_key, len(step_sizes)), betas[:-1], betas[1:], step_sizes


def _parts(count: int, progress: bool, title: str) -> Iterator[slice]:
    """The whole range, or parts of it under a progress bar."""
    size = max(1, count // _NUM_PARTS) if progress else count
    with tqdm(total=count, disable=not progress, desc=title, unit="temperature") as bar:
        for start in range(0, count, size):
            yield slice(start, start + size)
            bar.update(min(size, count - start))


@functools.partial(jax.jit, static_argnums=(3,))
def _warm(
    path: _Path, carry: tuple[jax.Array, jax.Array], schedule: PyTree, num_leapfrog: int
) -> tuple[jax.Array, jax.Array]:
    """Weights and positions after some transitions to lower temperatures."""

    def transition(carry: _Carry, inputs: PyTree) -> tuple[PyTree, None]:
        log_weights, position = carry
        key, previous, current, step_size = inputs
        log_weights = log_weights + path.at(previous).energy(position) - path.at(current).energy(position)
        return (log_weights, path.move(key, current, position, step_size, num_leapfrog)[0]), None

    return lax.scan(transition, carry, schedule)[0]


@functools.partial(jax.jit, static_argnums=(3,))
def _cool(
    path: _Path, carry: tuple[jax.Array, jax.Array], schedule: PyTree, num_leapfrog: int
) -> tuple[jax.Array, jax.Array]:
    """Weights and positions after some transitions back to higher temperatures."""

    def transition(carry: _Carry, inputs: PyTree) -> tuple[PyTree, None]:
        log_weights, position = carry
        key, previous, current, step_size = inputs
        position = path.move(key, current, position, step_size, num_leapfrog)[0]
        log_weights = log_weights + path.at(previous).energy(position) - path.at(current).energy(position)
        return (log_weights, position), None

    return lax.scan(transition, carry, schedule)[0]
