"""Whether chains have forgotten where they started, as far as many of them, from dispersed starts, can tell."""

import math

import jax
import jax.numpy as jnp

from _ppl_ebm.limits import MEMORY_CHAINS, MEMORY_COUNT
from numpyro_ebm.sampling.protocols import Energy


def remembered(energy: Energy, start: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The dependence of the ends of chains on their starts: the largest correlation, in standard errors and itself.

    Of every coordinate, and of the energy, it is looked at whether it is above its mean. Under independence such a
    correlation is normal where enough chains are expected in each of the four cases, and else is left out.

    :param start: shape ``(..., *batch_shape, *event_shape)``, chains in the leading dimensions.
    :param end: the same.
    """
    num_lead = start.ndim - len(energy.batch_shape) - len(energy.event_shape)
    num_chains, fixed = math.prod(start.shape[:num_lead]), start.shape[num_lead:]
    if num_chains < 4 * MEMORY_COUNT or not start.size:
        return jnp.zeros(()), jnp.zeros(())
    kept = min(num_chains, MEMORY_CHAINS)
    first, last = (_above_mean(energy, value.reshape(num_chains, *fixed)[:kept]) for value in (start, end))
    first_share, last_share = first.mean(0), last.mean(0)
    covariance = (first * last).mean(0) - first_share * last_share
    spread = first_share * (1 - first_share) * last_share * (1 - last_share)
    rarest = jnp.minimum(first_share, 1 - first_share) * jnp.minimum(last_share, 1 - last_share)
    is_told = kept * rarest >= MEMORY_COUNT
    correlation = jnp.where(is_told, jnp.abs(covariance) / jnp.sqrt(jnp.where(is_told, spread, 1.0)), 0.0).max()
    return math.sqrt(kept) * correlation, correlation


def _above_mean(energy: Energy, value: jax.Array) -> jax.Array:
    quantities = (value.reshape(len(value), -1), energy.energy(value).reshape(len(value), -1))
    return jnp.concatenate([(part > part.mean(0, keepdims=True)).astype(float) for part in quantities], 1)
