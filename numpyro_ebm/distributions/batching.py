"""Functions of one value and one set of parameters, mapped over batch dimensions that broadcast."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def broadcasting_vmap(function: Callable[..., Any], core_ndims: list[int], *arrays: jax.Array) -> Any:
    """Call ``function`` on arrays of ``core_ndims`` dimensions, mapped over their broadcast leading dimensions."""
    leads = [array.shape[: array.ndim - core] for array, core in zip(arrays, core_ndims, strict=True)]
    batch = jnp.broadcast_shapes(*leads)
    # A dimension of length one is shared along a longer one: drop it, and map the array there with in_axes=None.
    mapped = [[size == full for size, full in zip(lead[::-1], batch[::-1], strict=False)] for lead in leads]
    squeezed = []
    for array, lead, flags in zip(arrays, leads, mapped, strict=True):
        kept = tuple(size for size, keep in zip(lead, flags[::-1], strict=True) if keep)
        squeezed.append(array.reshape(kept + array.shape[len(lead) :]))
    for position in range(len(batch)):
        axes = tuple(0 if position < len(flags) and flags[position] else None for flags in mapped)
        function = jax.vmap(function, in_axes=axes)
    return function(*squeezed)
