"""Bernoulli draws that fuse with the matrix product they follow."""

import jax
import jax.numpy as jnp

from numpyro_ebm.infer.threefry import uniform


def bernoulli_from_logits(rng_key: jax.Array, logits: jax.Array) -> jax.Array:
    """Bernoulli draws with success probability ``sigmoid(logits)``, as 0 and 1 in the dtype of ``logits``.

    The rarer outcome is drawn against a uniform number of 32 bits (53 in float64), so that its probability is exact to
    2^-32 however small it is. NaN logits give NaN.

    :param rng_key: a JAX PRNG key.
    :param logits: log odds, any shape.
    """
    compute = jnp.promote_types(logits.dtype, jnp.float32)
    value = logits.astype(compute)
    threshold = uniform(rng_key, logits.shape, compute)
    ratio = jnp.exp(-jnp.abs(value))  # the rarer outcome has probability ratio / (1 + ratio)
    draw = (threshold * (1 + ratio) < ratio) ^ (value >= 0)
    return jnp.where(jnp.isnan(logits), logits, draw.astype(logits.dtype))
