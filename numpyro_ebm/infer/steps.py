"""Functional Markov transitions: pure functions of a key, a state and a target, batched over leading dimensions.

A *target* is an energy distribution (anything with ``unnormalized_log_prob`` and ``score``). Every transition leaves
``exp(-energy)`` exactly invariant.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class State(NamedTuple):
    """Chains at ``position`` with the log-density (up to its constant) and score there."""

    position: jax.Array
    log_density: jax.Array
    score: jax.Array


class Info(NamedTuple):
    """What a transition did: acceptance probability and decision per chain."""

    accept_prob: jax.Array
    accepted: jax.Array


def init(target: Any, position: jax.Array) -> State:
    """The state of chains that start at ``position``."""
    return State(position, target.unnormalized_log_prob(position), target.score(position))


def hamiltonian_step(
    rng_key: jax.Array, state: State, target: Any, step_size: jax.Array, num_leapfrog: int, jitter: float = 0.5
) -> tuple[State, Info]:
    """One Hamiltonian Monte Carlo transition (Duane 1987; Neal 2011, section 5.3.2).

    A single leapfrog step without jitter is the Metropolis-adjusted Langevin proposal
    ``x + 0.5 step_size^2 score(x) + step_size n`` (Roberts & Tweedie 1996).

    :param step_size: a scalar, or one per element of the batch.

    The trajectory length is jittered by drawing every chain's step size from ``step_size * U(1 - jitter, 1 + jitter)``:
    a fixed length resonates with the target's periods.
    """
    key_momentum, key_jitter, key_accept = jax.random.split(rng_key, 3)
    batch = state.log_density.shape
    event_dim = state.position.ndim - len(batch)
    dtype = state.position.dtype
    momentum = jax.random.normal(key_momentum, state.position.shape, dtype)
    size = jnp.broadcast_to(step_size, batch) * jax.random.uniform(key_jitter, batch, dtype, 1 - jitter, 1 + jitter)
    size = size.reshape(batch + (1,) * event_dim)

    def leapfrog(carry: tuple[jax.Array, jax.Array, jax.Array], _: None) -> tuple[Any, None]:
        position, half_momentum, score = carry
        half_momentum = half_momentum + 0.5 * size * score
        position = position + size * half_momentum
        score = target.score(position)
        return (position, half_momentum + 0.5 * size * score, score), None

    (position, end_momentum, score), _ = lax.scan(
        leapfrog, (state.position, momentum, state.score), length=num_leapfrog
    )
    proposal = State(position, target.unnormalized_log_prob(position), score)
    kinetic = 0.5 * _sum_event(momentum**2 - end_momentum**2, event_dim)
    log_ratio = proposal.log_density - state.log_density + kinetic
    accept_prob = jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))
    accepted = jax.random.uniform(key_accept, batch, dtype) < accept_prob
    return _select(accepted, proposal, state), Info(accept_prob, accepted)


def _sum_event(array: jax.Array, event_dim: int) -> jax.Array:
    return jnp.sum(array, axis=tuple(range(array.ndim - event_dim, array.ndim)))


def _select(accepted: jax.Array, proposal: State, state: State) -> State:
    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(accepted.reshape(accepted.shape + (1,) * (new.ndim - accepted.ndim)), new, old)

    return jax.tree.map(choose, proposal, state)
