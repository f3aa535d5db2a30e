"""Sums over all states of binary units, and draws from the terms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from _ppl_ebm.limits import chunk_units
from numpyro_ebm.distributions.batching import broadcasting_vmap


def binary_states(num_units: int, dtype: Any) -> jax.Array:
    """All states of ``num_units`` binary units, shape ``(2**num_units, num_units)``, first unit slowest."""
    codes = jnp.arange(2**num_units, dtype=jnp.uint32)
    shifts = jnp.arange(num_units - 1, -1, -1, dtype=jnp.uint32)
    return ((codes[:, None] >> shifts[None, :]) & 1).astype(dtype)


def enumerate_terms(log_term: Callable[[jax.Array], jax.Array], num_units: int, dtype: Any, *, cost: int) -> jax.Array:
    """``log_term`` of every binary state, shape ``(2**num_units,)``, computed and differentiated chunk by chunk.

    :param log_term: maps states of shape ``(n, num_units)`` to log terms of shape ``(n,)``.
    :param cost: numbers that it takes for one state, on which the size of the chunks depends.
    """
    states = binary_states(num_units, dtype)
    if num_units <= chunk_units(cost):
        return log_term(states)
    chunks = states.reshape(-1, 2 ** chunk_units(cost), num_units)
    return lax.map(jax.checkpoint(log_term), chunks).reshape(-1)


def sample_index(rng_key: jax.Array, log_terms: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw indices from the categorical distributions over the last axis of ``log_terms`` by inversion."""
    cumulative = jnp.cumsum(jax.nn.softmax(log_terms), axis=-1)
    uniform = jax.random.uniform(rng_key, shape, cumulative.dtype)

    def invert(cdf: jax.Array, threshold: jax.Array) -> jax.Array:
        return jnp.minimum(jnp.searchsorted(cdf, threshold * cdf[-1], side="right"), len(cdf) - 1)

    return broadcasting_vmap(invert, [1, 0], cumulative, uniform)
