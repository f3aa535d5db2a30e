"""Sampler configurations: how an energy distribution draws, given as ``sampler=`` to its constructor.

``Exact`` draws independently; ``Gibbs``, ``Langevin`` and ``Hamiltonian`` run one Markov chain per draw and return its
end. All are small frozen dataclasses, so that a distribution that carries one crosses ``jit`` as a static part.

A user's own chain is a frozen dataclass that extends :class:`Chain`::

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class RandomWalk(Chain):
        step_size: float = 0.5

        def check(self, energy): ...
        def init(self, energy, value): ...
        def advance(self, rng_key, energy, carry, num_steps, tuning): ...
        def value(self, energy, carry): ...
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from numpyro.util import not_jax_tracer

from _ppl_ebm import capabilities
from _ppl_ebm.checks import check_positive, check_positive_int, check_probability, check_reached, warn_of_memory
from _ppl_ebm.limits import NO_STATE, NUM_REDRAWS
from numpyro_ebm.sampling import steps
from numpyro_ebm.sampling.memory import remembered
from numpyro_ebm.sampling.protocols import Coordinates, Energy, MarkovChain, Sampler
from numpyro_ebm.sampling.types import Key, PyTree


def check_sampler(energy: Energy, sampler: Any) -> None:
    """Refuse whatever is not a sampler configuration, or not one for this distribution."""
    if sampler is not None:
        capabilities.check_sampler(energy, sampler, Sampler, "numpyro_ebm")
        sampler.check(energy)


def check_chain(owner: str, energy: Energy, sampler: Any) -> None:
    """Refuse whatever is not a Markov chain for this distribution."""
    capabilities.check_chain(owner, sampler, MarkovChain)
    sampler.check(energy)


@dataclasses.dataclass(frozen=True)
class Exact:
    """Independent draws by enumeration or in closed form."""

    def check(self, energy: Energy) -> None:
        capabilities.check_exact(energy)

    def sample(self, rng_key: Key, energy: Energy, shape: tuple[int, ...]) -> jax.Array:
        return _exact_sample(rng_key, energy, shape)


@dataclasses.dataclass(frozen=True)
class Ancestral:
    """Independent draws, one coordinate after the other, for causal models; ``Exact()`` draws the same in parallel."""

    def check(self, energy: Energy) -> None:
        capabilities.check_ancestral(energy)

    def sample(self, rng_key: Key, energy: Energy, shape: tuple[int, ...]) -> jax.Array:
        return _ancestral_sample(rng_key, energy, shape)


@dataclasses.dataclass(frozen=True)
class Chain:
    """The base of Markov chains: ``sample`` and ``tune`` for members that define ``check``, ``init``, ``advance`` and
    ``value`` (see :class:`numpyro_ebm.sampling.protocols.MarkovChain`).

    :param num_steps: transitions per draw, of which the first half warms up.
    """

    num_steps: int = 100

    def __post_init__(self) -> None:
        check_positive_int("num_steps", self.num_steps)

    def check(self, energy: Energy) -> None:
        """Raise ``TypeError`` where this chain cannot draw from ``energy``."""
        raise NotImplementedError(f"{type(self).__name__} must define check(energy)")

    def init(self, energy: Energy, value: jax.Array) -> PyTree:
        """What chains that start at ``value`` carry along."""
        raise NotImplementedError(f"{type(self).__name__} must define init(energy, value)")

    def advance(self, rng_key: Key, energy: Energy, carry: PyTree, num_steps: int, tuning: PyTree) -> PyTree:
        """What they carry ``num_steps`` transitions later."""
        raise NotImplementedError(f"{type(self).__name__} must define advance(rng_key, energy, carry, ...)")

    def value(self, energy: Energy, carry: PyTree) -> jax.Array:
        """The values where they are."""
        raise NotImplementedError(f"{type(self).__name__} must define value(energy, carry)")

    def tune(self, rng_key: Key, energy: Energy, value: jax.Array, num_steps: int) -> tuple[jax.Array, PyTree]:
        """Run ``num_steps`` transitions of warm-up; there is nothing to tune."""
        return run_from(rng_key, self, energy, value, num_steps), None

    def sample(self, rng_key: Key, energy: Energy, shape: tuple[int, ...]) -> jax.Array:
        """Ends of separate chains, shape ``shape + event_shape``; NaN, where traced, for those of infinite energy.

        :raises ValueError: if a chain reached no finite energy.
        """
        return chain_ends(rng_key, self, energy, shape, self.num_steps)


@dataclasses.dataclass(frozen=True)
class Gibbs(Chain):
    """Block Gibbs sampling between visible and hidden units (Hinton 2002), for families with conditionals.

    :param num_steps: sweeps per draw, from the family's starting points.

    A warning says so where the sweeps of a Markov network would not move between its states, as far as its tables tell.
    """

    def check(self, energy: Energy) -> None:
        capabilities.check_gibbs(energy)
        energy.check_sweeps()

    def init(self, energy: Energy, value: jax.Array) -> jax.Array:
        """What a chain carries along: its value."""
        del energy
        return value

    def advance(self, rng_key: Key, energy: Energy, carry: jax.Array, num_steps: int, tuning: None = None) -> jax.Array:
        """The value ``num_steps`` sweeps later."""
        del tuning
        sweep = lambda value, key: (energy.gibbs_step(key, value), None)
        return lax.scan(sweep, carry, jax.random.split(rng_key, num_steps))[0]

    def value(self, energy: Energy, carry: jax.Array) -> jax.Array:
        """The value itself."""
        del energy
        return carry

    def sample(self, rng_key: Key, energy: Energy, shape: tuple[int, ...]) -> jax.Array:
        """As :meth:`Chain.sample`; warns where sweeps would not move."""
        energy.check_sweeps()
        return super().sample(rng_key, energy, shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hamiltonian(Chain):
    """Hamiltonian Monte Carlo with jittered trajectory lengths on the family's score.

    :param num_steps: transitions per draw. With ``step_size=None`` the first half of them adapts the step size to an
        acceptance probability of ``target_accept``; the second half keeps it, shared by all chains of a call.
    :param num_leapfrog: leapfrog steps per transition.
    :param step_size: mean leapfrog step, in the units of the values (so a standard deviation, not a variance).
    """

    num_leapfrog: int = 10
    step_size: float | None = None
    target_accept: float = 0.8
    jitter: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_int("num_leapfrog", self.num_leapfrog)
        if self.step_size is not None:
            check_positive("step_size", self.step_size)
        check_probability("target_accept", self.target_accept)

    def check(self, energy: Energy) -> None:
        capabilities.check_continuous(type(self).__name__, energy)

    def tune(self, rng_key: Key, energy: Energy, value: jax.Array, num_steps: int) -> tuple[jax.Array, jax.Array]:
        """Run ``num_steps`` transitions while adapting the step size, unless it is given.

        Every chain adapts its own by Robbins-Monro steps on its logarithm, from a start that suits unit scales: one
        that starts in a steep tail shrinks it until it moves. The result is the median over chains of the averaged
        iterates, one step size for each element of the batch.
        """
        target = energy.unconstrained
        state = self.init(energy, value)
        size = max(1, math.prod(energy.event_shape))
        start = 0.5 * size**-0.25 if self.step_size is None else self.step_size
        rate = 2.0 if self.step_size is None else 0.0

        def step(carry: tuple[Any, jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            state, log_step, average = carry
            key, count = inputs
            state, info = self._step(key, state, target, jnp.exp(log_step))
            log_step = log_step + rate * count**-0.5 * (info.accept_prob - self.target_accept)
            return (state, log_step, average + count**-0.75 * (log_step - average)), None

        log_step = jnp.full(state.log_density.shape, math.log(start), value.dtype)
        counts = jnp.arange(1, num_steps + 1, dtype=value.dtype)
        inputs = (jax.random.split(rng_key, num_steps), counts)
        (state, _, average), _ = lax.scan(step, (state, log_step, log_step), inputs)
        chain_axes = tuple(range(average.ndim - len(energy.batch_shape)))
        step_size = jnp.exp(jnp.median(average, axis=chain_axes) if chain_axes and average.size else average)
        return self.value(energy, state), step_size

    def init(self, energy: Energy, value: jax.Array) -> steps.State:
        """What a chain carries along: unconstrained position, log-density and score."""
        target = energy.unconstrained
        return steps.init(target, target.from_value(value))

    def advance(
        self, rng_key: Key, energy: Energy, carry: steps.State, num_steps: int, tuning: jax.Array | None = None
    ) -> steps.State:
        """What it carries ``num_steps`` transitions later, at the tuned or given step size."""
        step_size = self.step_size if tuning is None else tuning
        if step_size is None:
            raise ValueError(
                f"step_size: {type(self).__name__}() expected a number, got None; only sample() and the warm-up of "
                "run_chain adapt it"
            )
        target = energy.unconstrained
        step = lambda state, key: (self._step(key, state, target, step_size)[0], None)
        return lax.scan(step, carry, jax.random.split(rng_key, num_steps))[0]

    def value(self, energy: Energy, carry: steps.State) -> jax.Array:
        """The value at its position."""
        return energy.unconstrained.to_value(carry.position)

    def _step(
        self, key: Key, state: steps.State, target: Coordinates, step_size: float | jax.Array
    ) -> tuple[steps.State, steps.Info]:
        return steps.hamiltonian_step(key, state, target, step_size, self.num_leapfrog, self.jitter)


@dataclasses.dataclass(frozen=True)
class Langevin(Hamiltonian):
    """Metropolis-adjusted Langevin: the proposal is ``x + 0.5 step_size^2 score(x) + step_size n``.

    :param num_steps: transitions per draw; adapted as in :class:`Hamiltonian`.
    """

    num_steps: int = 1000
    _: dataclasses.KW_ONLY
    num_leapfrog: int = dataclasses.field(default=1, init=False)
    target_accept: float = 0.574
    jitter: ClassVar[float] = 0.0


def run_from(
    rng_key: Key, chain: MarkovChain, energy: Energy, value: jax.Array, num_steps: int, tuning: PyTree = None
) -> jax.Array:
    """Values ``num_steps`` transitions after ``value``, at the tuned or given settings."""
    return chain.value(energy, chain.advance(rng_key, energy, chain.init(energy, value), num_steps, tuning))


def chain_ends(rng_key: Key, chain: MarkovChain, energy: Energy, shape: tuple[int, ...], num_steps: int) -> jax.Array:
    """Ends of separate chains of ``num_steps`` transitions from the family's starting points; half of them warm up.

    A warning tells where many of them have not forgotten where they started; not, where they are traced.

    :raises ValueError: if a chain reached no finite energy; where traced, its end is NaN.
    """
    ends, is_lost, memory = _chain_ends(rng_key, chain, energy, shape, num_steps)
    if not_jax_tracer(is_lost):
        check_reached("sampler", energy, int(is_lost.sum()), is_lost.size)
        warn_of_memory(energy, chain, num_steps, *map(float, memory))
    return ends


@functools.partial(jax.jit, static_argnums=(1, 3, 4))
def _chain_ends(
    rng_key: Key, chain: MarkovChain, energy: Energy, shape: tuple[int, ...], num_steps: int
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
    """The ends, which of them have no finite energy (NaN, or a state that there is not), and what they remember."""
    key_initial, key_tune, key_run = jax.random.split(rng_key, 3)
    num_tune = num_steps // 2
    starts = starting_points(key_initial, energy, shape)
    value, tuning = chain.tune(key_tune, energy, starts, num_tune)
    ends = lax.stop_gradient(run_from(key_run, chain, energy, value, num_steps - num_tune, tuning))
    is_lost = has_no_density(energy, ends)
    memory = lax.stop_gradient(remembered(energy, starts, ends))
    nowhere = jnp.nan if jnp.issubdtype(ends.dtype, jnp.floating) else NO_STATE
    return jnp.where(_over_event(is_lost, energy), nowhere, ends), is_lost, memory


@functools.partial(jax.jit, static_argnums=(2,))
def starting_points(rng_key: Key, energy: Energy, shape: tuple[int, ...]) -> jax.Array:
    """The family's starting points; those without a finite energy are drawn anew, a number of times.

    :param shape: as in ``energy.initial``.
    """

    def again(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        count, value = state
        fresh = energy.initial(jax.random.fold_in(rng_key, count), shape)
        return count + 1, jnp.where(_over_event(has_no_density(energy, value), energy), fresh, value)

    def is_needed(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        count, value = state
        return (count < NUM_REDRAWS) & jnp.any(has_no_density(energy, value))

    return lax.while_loop(is_needed, again, (jnp.asarray(0), energy.initial(rng_key, shape)))[1]


def has_no_density(energy: Energy, value: jax.Array) -> jax.Array:
    """Which values have no finite energy."""
    return ~jnp.isfinite(lax.stop_gradient(energy.energy(value)))


def _over_event(array: jax.Array, energy: Energy) -> jax.Array:
    return array.reshape(array.shape + (1,) * len(energy.event_shape))


@functools.partial(jax.jit, static_argnums=(2,))
def _exact_sample(rng_key: Key, energy: Energy, shape: tuple[int, ...]) -> jax.Array:
    return lax.stop_gradient(energy.exact_sample(rng_key, shape))


@functools.partial(jax.jit, static_argnums=(2,))
def _ancestral_sample(rng_key: Key, energy: Energy, shape: tuple[int, ...]) -> jax.Array:
    return lax.stop_gradient(energy.ancestral_sample(rng_key, shape))
