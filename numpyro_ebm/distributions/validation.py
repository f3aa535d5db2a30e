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


def check_shape(
    name: str, shape: tuple[int, ...], dims: tuple[str, ...], sizes: dict[str, int], batch_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Bind the sizes of ``dims`` and return the joint batch shape; one message for every way a shape can be wrong."""
    core = shape[len(shape) - len(dims) :] if len(shape) >= len(dims) else ()
    if len(core) != len(dims) or any(sizes.setdefault(dim, size) != size for dim, size in zip(dims, core, strict=True)):
        expected = commas(f"{dim}={sizes[dim]}" if dim in sizes else dim for dim in dims)
        raise ValueError(f"{name}: expected shape (..., {expected}), got {shape}")
    check_broadcast(name, shape[: len(shape) - len(dims)], batch_shape)
    return jnp.broadcast_shapes(shape[: len(shape) - len(dims)], batch_shape)


def check_broadcast(name: str, shape: tuple[int, ...], batch_shape: tuple[int, ...]) -> None:
    """Refuse batch dimensions that do not broadcast."""
    try:
        jnp.broadcast_shapes(shape, batch_shape)
    except ValueError:
        raise ValueError(f"{name}: expected batch dimensions that broadcast with {batch_shape}, got {shape}") from None


def check_expandable(batch_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuse a shape that ``batch_shape`` does not expand to."""
    fits = len(shape) >= len(batch_shape) and all(
        old in (1, new) for old, new in zip(batch_shape[::-1], shape[::-1], strict=False)
    )
    if not fits:
        raise ValueError(f"batch_shape: expected a shape that {batch_shape} expands to, got {shape}")


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


def commas(items: Any) -> str:
    """Items in one line."""
    return ", ".join(str(item) for item in items)
