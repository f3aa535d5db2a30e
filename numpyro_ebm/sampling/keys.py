"""Random keys: given, drawn from the enclosing model, or an error that says which argument is missing."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpyro


def require_key(owner: str, rng_key: Any) -> jax.Array:
    """``rng_key`` itself, or a key drawn from the seeded model around this call.

    :raises ValueError: if there is neither.
    :raises TypeError: if ``rng_key`` is not a JAX PRNG key.
    """
    if rng_key is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPyro warns outside a seed handler; the error below says more
            rng_key = numpyro.prng_key()
    if rng_key is None:
        raise ValueError(
            f"rng_key: {owner} is stochastic and expected a JAX PRNG key, got None outside a seeded model; pass "
            "rng_key=jax.random.key(seed), or call it inside a model that runs under numpyro.handlers.seed, SVI or MCMC"
        )
    if not is_key(rng_key):
        raise TypeError(f"rng_key: {owner} expected a single JAX PRNG key, got {rng_key!r}")
    return rng_key


def is_key(value: Any) -> bool:
    """Whether ``value`` is one PRNG key, new style or raw."""
    if not isinstance(value, jax.Array):
        return False
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value.shape == ()
    return value.dtype == jnp.uint32 and value.ndim == 1
