"""What a Markov network computes with its tables: sums in log space, look-ups, draws and the order of a sweep."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.distributions import constraints

from _ppl_ebm.factor_graph import FactorGraph, Group, padded
from _ppl_ebm.tables import STIFFNESS


def log_sum(table: jax.Array) -> jax.Array:
    """Log of the sum of ``exp(table)`` over the first axis, where entries and whole sums may be ``-inf``.

    Where no term is possible, cotangents go on to the terms; those of ``logsumexp`` would be NaN even at weight 0.
    """
    largest = table.max(0)
    is_impossible = jnp.isneginf(largest)
    shift = lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0))
    total = jnp.exp(table - shift[None]).sum(0)
    return jnp.where(is_impossible, largest, jnp.log(jnp.where(is_impossible, 1, total)) + shift)


def log_total(total: jax.Array) -> jax.Array:
    """``total`` itself; where it is ``-inf``, because no state is possible, with NaN for all its derivatives."""
    is_impossible = jnp.isneginf(total)
    return jnp.where(is_impossible, jnp.log(jnp.exp(jnp.where(is_impossible, total, 0))), total)


def softened(table: jax.Array, inverse_temperature: jax.Array) -> jax.Array:
    """Energies on the way from 0 to ``table``; those that forbid a state grow from 0 to infinity on it."""
    forbids = jnp.isposinf(table)
    below = inverse_temperature < 1
    barrier = jnp.where(below, -STIFFNESS * jnp.log1p(-jnp.where(below, inverse_temperature, 0)), jnp.inf)
    return jnp.where(forbids, barrier, inverse_temperature * jnp.where(forbids, 0, table))


class States(constraints.integer_interval):  # type: ignore[misc]
    """Whole numbers up to a bound of each variable (NumPyro's own promotes ranks implicitly)."""

    def __call__(self, x: Any) -> Any:
        return constraints.integer_interval(0, np.broadcast_to(self.upper_bound, jnp.shape(x)))(x)


def flat_index(group: Group, states: jax.Array, rows: Any = None, axis: int | None = None) -> jax.Array:
    """Where the states of one value stand in a group's flat tables, one index per factor.

    :param rows: the factors asked for; default: all.
    :param axis: look at all states of the variable at this axis of each factor, along a new last dimension.
    """
    scopes, offsets = jnp.array(group.scopes), jnp.array(group.offsets)
    if rows is not None:
        scopes, offsets = scopes[rows], offsets[rows]
    steps = group.strides * (np.arange(len(group.shape)) != axis)
    index = offsets + (states[scopes] * steps[None, :]).sum(-1)
    return index if axis is None else index[:, None] + group.strides[axis] * jnp.arange(group.shape[axis])[None, :]


def draw(logits: jax.Array, counts: jax.Array, uniform: jax.Array, before: jax.Array) -> jax.Array:
    """Draw from the categorical distributions over the first ``counts`` entries of the last axis, by inversion.

    :param before: what stays where no entry is possible.
    """
    possible = lax.broadcasted_iota(int, logits.shape, logits.ndim - 1) < counts[..., None]
    cumulative = jnp.cumsum(jax.nn.softmax(logits.astype(uniform.dtype), where=possible), axis=-1)
    below = cumulative <= uniform[..., None] * cumulative[..., -1:]
    return jnp.where(jnp.isnan(cumulative[..., -1]), before, jnp.minimum(below.sum(-1), counts - 1))


@functools.lru_cache(maxsize=128)
def sweep_schedule(graph: FactorGraph) -> tuple[list[tuple[int, int]], Any]:
    """Which variables each step of a sweep redraws, and which rows of each group matter at which axis, to scan over.

    Padded to the longest step: members with a number past the last variable, places with one past the last member.
    """
    groups = enumerate(graph.groups)
    pairs = [(number, axis) for number, group in groups for axis in range(len(group.shape))]
    members = padded(list(graph.colours), len(graph.cardinalities))
    incident = [graph.incident(graph.groups[number], axis) for number, axis in pairs]
    blocks = [
        (padded([rows for rows, _ in steps], 0), padded([places for _, places in steps], members.shape[1]))
        for steps in incident
    ]
    return pairs, (members, blocks)
