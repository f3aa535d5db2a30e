"""Functional Markov transitions: pure functions of a key, a state and a target, batched over leading dimensions.

A *target* has ``unnormalized_log_prob`` and ``score``: an energy distribution, or a :class:`Target` made of functions.
``init`` makes the state of chains from positions, and every ``*_step`` advances it and says in an :class:`Info` what
happened. All but :func:`unadjusted_langevin_step` leave ``exp(log-density)`` exactly invariant.

Step sizes and scales are lengths: standard deviations, not variances. A *scale* preconditions: it multiplies the step
of each coordinate, as a diagonal mass matrix with the entries ``1 / scale^2`` would.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from numpyro_ebm.sampling.random import normal

DIVERGENCE = 1000.0  # a fall of the log-density (kinetic energy included) that no working integrator makes


class State(NamedTuple):
    """Chains at ``position`` with the log-density (up to its constant) and score there."""

    position: jax.Array
    log_density: jax.Array
    score: jax.Array


class PhaseState(NamedTuple):
    """Chains that keep their momentum."""

    position: jax.Array
    log_density: jax.Array
    score: jax.Array
    momentum: jax.Array


class Info(NamedTuple):
    """What a transition did: acceptance probability, decision and whether it diverged, per chain."""

    accept_prob: jax.Array
    accepted: jax.Array
    diverging: jax.Array


class Target:
    """A density by its logarithm, up to a constant.

    :param log_density: maps positions of shape ``(*batch, *event)`` to ``(*batch,)``, each on its own.
    :param score: its gradient, of the shape of the positions, where there is a cheaper way to it than differentiation.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.infer import steps
    >>> normal = steps.Target(lambda x: -0.5 * (x**2).sum(-1), score=lambda x: -x)
    >>> state = steps.init(normal, jnp.zeros((100, 2)))
    >>> state, info = steps.hamiltonian_step(jax.random.key(0), state, normal, 0.5, num_leapfrog=5)
    >>> state.position.shape, info.accept_prob.shape
    ((100, 2), (100,))
    """

    def __init__(
        self, log_density: Callable[[jax.Array], jax.Array], score: Callable[[jax.Array], jax.Array] | None = None
    ) -> None:
        self.unnormalized_log_prob = log_density
        self.score = jax.grad(lambda position: log_density(position).sum()) if score is None else score


def init(target: Any, position: jax.Array) -> State:
    """The state of chains that start at ``position``."""
    return State(position, target.unnormalized_log_prob(position), target.score(position))


def init_underdamped(rng_key: jax.Array, target: Any, position: jax.Array) -> PhaseState:
    """The state of chains that start at ``position`` with a normal momentum."""
    return PhaseState(*init(target, position), normal(rng_key, position.shape, position.dtype))


def hamiltonian_step(
    rng_key: jax.Array,
    state: State,
    target: Any,
    step_size: Any,
    num_leapfrog: int,
    jitter: float = 0.5,
    scale: Any = 1.0,
) -> tuple[State, Info]:
    """One Hamiltonian Monte Carlo transition (Duane 1987; Neal 2011, section 5.3.2).

    The trajectory length is jittered by drawing every chain's step size from ``step_size * U(1 - jitter, 1 + jitter)``:
    a fixed length resonates with the target's periods.

    :param step_size: a scalar, or one per element of the batch.
    :param num_leapfrog: leapfrog steps.
    :param jitter: from 0 (none) to 1.
    :param scale: broadcasts against the position.
    """
    key_momentum, key_jitter, key_accept = jax.random.split(rng_key, 3)
    batch, dtype = state.log_density.shape, state.position.dtype
    momentum = normal(key_momentum, state.position.shape, dtype)
    size = jnp.broadcast_to(step_size, batch)
    if jitter:
        size = size * jax.random.uniform(key_jitter, batch, dtype, 1 - jitter, 1 + jitter)
    proposal, end_momentum = leapfrog(target, state, momentum, size, num_leapfrog, scale)
    accepted, info = _metropolis(key_accept, state, proposal, momentum, end_momentum)
    return select(accepted, proposal, state), info


def adjusted_langevin_step(
    rng_key: jax.Array, state: State, target: Any, step_size: Any, scale: Any = 1.0
) -> tuple[State, Info]:
    """One Metropolis-adjusted Langevin transition, MALA (Roberts & Tweedie 1996).

    The proposal ``x + 0.5 step_size^2 scale^2 score(x) + step_size scale n`` is one leapfrog step.
    """
    return hamiltonian_step(rng_key, state, target, step_size, 1, 0.0, scale)


def unadjusted_langevin_step(
    rng_key: jax.Array, state: State, target: Any, step_size: Any, scale: Any = 1.0
) -> tuple[State, Info]:
    """One step of the unadjusted Langevin algorithm, ULA: the proposal of MALA, always accepted.

    Biased: its stationary distribution differs from the target in order ``step_size^2``. In ``Normal(0, s^2)`` it has
    the variance ``s^2 / (1 - (step_size / (2 s))^2)``. Chains that have left all bounds are reported as diverging.
    """
    size = _over_event(jnp.broadcast_to(step_size, state.log_density.shape), state.position) * scale
    noise = normal(rng_key, state.position.shape, state.position.dtype)
    after = init(target, state.position + 0.5 * size**2 * state.score + size * noise)
    return after, _always(state)._replace(diverging=~jnp.isfinite(after.log_density))


def underdamped_step(
    rng_key: jax.Array,
    state: PhaseState,
    target: Any,
    step_size: Any,
    friction: Any = 1.0,
    num_leapfrog: int = 1,
    scale: Any = 1.0,
) -> tuple[PhaseState, Info]:
    """One transition of adjusted underdamped Langevin dynamics (Horowitz 1991; Neal 2011, section 5.5.3).

    The momentum decays by ``exp(-friction * step_size * num_leapfrog)`` and takes up noise, leapfrog steps follow, and
    a rejection turns the chain around: exact for every step size and friction.

    :param friction: per unit of time; 0 keeps the momentum (and is not ergodic), infinity is Hamiltonian Monte Carlo.
    """
    key_momentum, key_accept = jax.random.split(rng_key)
    size = jnp.broadcast_to(step_size, state.log_density.shape)
    decay = _over_event(jnp.exp(-friction * size * num_leapfrog), state.position)
    noise = normal(key_momentum, state.position.shape, state.position.dtype)
    momentum = decay * state.momentum + jnp.sqrt(1 - decay**2) * noise
    start = State(*state[:3])
    proposal, end_momentum = leapfrog(target, start, momentum, size, num_leapfrog, scale)
    accepted, info = _metropolis(key_accept, start, proposal, momentum, end_momentum)
    return select(accepted, PhaseState(*proposal, end_momentum), PhaseState(*start, -momentum)), info


def block_gibbs_step(rng_key: jax.Array, state: State, target: Any) -> tuple[State, Info]:
    """One sweep of an energy distribution's own conditionals, which is always accepted."""
    return init(target, target.gibbs_step(rng_key, state.position)), _always(state)


def leapfrog(
    target: Any, state: State, momentum: jax.Array, step_size: jax.Array, num_leapfrog: int, scale: Any
) -> tuple[State, jax.Array]:
    """Follow Hamilton's equations; momenta are in units in which they are standard normal."""
    size = _over_event(step_size, state.position) * scale

    def move(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[Any, None]:
        position, momentum = carry
        position = position + size * momentum
        return (position, momentum + size * target.score(position)), None

    carry = (state.position, momentum + 0.5 * size * state.score)
    if num_leapfrog > 1:
        carry, _ = lax.scan(move, carry, length=num_leapfrog - 1)
    position, momentum = carry
    # outside the loop the compiler shares the work of the score and the log-density
    proposal = init(target, position + size * momentum)
    return proposal, momentum + 0.5 * size * proposal.score


def _metropolis(
    rng_key: jax.Array, state: State, proposal: State, momentum: jax.Array, end_momentum: jax.Array
) -> tuple[jax.Array, Info]:
    event_dim = momentum.ndim - state.log_density.ndim
    kinetic = 0.5 * _sum_event(momentum**2 - end_momentum**2, event_dim)
    log_ratio = proposal.log_density - state.log_density + kinetic
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    accept_prob = jnp.exp(jnp.minimum(log_ratio, 0.0))
    accepted = jax.random.uniform(rng_key, accept_prob.shape, accept_prob.dtype) < accept_prob
    return accepted, Info(accept_prob, accepted, log_ratio < -DIVERGENCE)


def _always(state: State) -> Info:
    ones = jnp.ones_like(state.log_density)
    return Info(ones, ones > 0, ones < 0)


def _over_event(array: jax.Array, position: jax.Array) -> jax.Array:
    return array.reshape(array.shape + (1,) * (position.ndim - array.ndim))


def _sum_event(array: jax.Array, event_dim: int) -> jax.Array:
    return jnp.sum(array, axis=tuple(range(array.ndim - event_dim, array.ndim)))


def select(accepted: jax.Array, proposal: Any, state: Any) -> Any:
    """The proposal where it is accepted, else the state as it is, of any kind of state."""
    return jax.tree.map(lambda new, old: jnp.where(_over_event(accepted, new), new, old), proposal, state)
