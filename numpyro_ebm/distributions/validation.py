"""Checks of parameters and values: each names the argument, what was expected and what came."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def as_real(name: str, value: Any) -> jax.Array:
    """``value`` as a real floating-point array."""
    try:
        array = jnp.asarray(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array or real numbers, got {type(value).__name__}") from error
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a real floating-point array, got dtype {array.dtype}")
    return array


def check_constraint(owner: str, name: str, value: Any, constraint: Any) -> None:
    """Refuse entries that are not finite or outside ``constraint``."""
    array = np.asarray(value)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}: {owner} expected finite entries, got {np.sum(~np.isfinite(array))} NaN or infinite")
    if not np.all(np.asarray(constraint(value))):
        raise ValueError(f"{name}: {owner} expected {constraint}, got entries from {array.min()} to {array.max()}")


def check_support(owner: str, name: str, value: Any, support: Any) -> None:
    """Refuse values outside the support."""
    with jax.ensure_compile_time_eval():
        inside = bool(np.all(support(value)))
    if not inside:
        array = np.asarray(value)
        raise ValueError(
            f"{name}: {owner} expected values in its support {support}, got entries from {array.min()} to {array.max()}"
        )
