"""Random numbers that fuse with the arithmetic around them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def uniform(rng_key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Uniform numbers on the open unit interval, to 2^-32 (in float64 to 2^-64)."""
    key0, key1 = _key_words(rng_key)
    high, low = threefry2x32(key0, key1, *_counters(shape))
    if dtype == jnp.float64:
        return (high.astype(dtype) + (low.astype(dtype) + 0.5) * 2.0**-32) * 2.0**-32
    return (high.astype(dtype) + 0.5) * jnp.asarray(2.0**-32, dtype)


def normal(rng_key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normal numbers by inversion of uniform ones of 24 bits (in float64, 53): up to 5.4 (8.2) in size."""
    compute = jnp.promote_types(dtype, jnp.float32)
    high, low = threefry2x32(*_key_words(rng_key), *_counters(shape))
    if compute == jnp.float64:
        symmetric = (high.astype(compute) * 2.0**22 - 2.0**53 + ((low >> 11) * 2 + 1).astype(compute)) * 2.0**-53
    else:
        symmetric = ((high >> 8).astype(compute) - 2.0**23 + 0.5) * 2.0**-23
    # all sums above are exact, and never +-1
    return (math.sqrt(2) * lax.erf_inv(symmetric)).astype(dtype)


def threefry2x32(key0: jax.Array, key1: jax.Array, x0: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Threefry-2x32 block cipher with 20 rounds, elementwise on 32-bit words."""
    schedule = (key0, key1, key0 ^ key1 ^ jnp.uint32(0x1BD11BDA))
    x0, x1 = x0 + key0, x1 + key1
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = ((x1 << rotation) | (x1 >> (32 - rotation))) ^ x0
        x0 = x0 + schedule[(group + 1) % 3]
        x1 = x1 + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x0, x1


def _counters(shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """A distinct 64-bit counter per element: position along the last axis, and the flat index of the other axes."""
    high = low = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in range(len(shape) - 1, -1, -1):
        position = lax.broadcasted_iota(jnp.uint32, shape, axis)
        if axis == len(shape) - 1:
            low = position
        else:
            high = high + position * jnp.uint32(stride)
            stride *= shape[axis]
    return high, low


def _key_words(rng_key: jax.Array) -> tuple[jax.Array, jax.Array]:
    key = rng_key if jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(rng_key)
    words = jax.random.key_data(key)
    if len(words) == 4:  # rbg keys are pairs of Threefry keys
        return threefry2x32(words[2], words[3], words[0], words[1])
    return words[0], words[1]


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
