"""How a family's parameters become a constructor: one signature, shapes and messages for every family."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_POSITIONAL, _KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY


def declare_constructor(cls: Any, base: Any) -> None:
    """Give ``cls`` the signature of its parameters and options, as dataclasses have theirs from their fields.

    A class that writes its own ``__init__``, or inherits a written one, keeps it.
    """
    optional = dict.fromkeys(cls.optional_parameters)
    defaults = dict.fromkeys(name for name in cls.parameter_defaults if name not in optional)
    defaults |= {**cls.option_defaults, **optional}
    required = [inspect.Parameter(name, _POSITIONAL) for name in cls.parameter_dims if name not in defaults]
    others = [inspect.Parameter(name, _POSITIONAL, default=default) for name, default in defaults.items()]
    policies = {"log_partition": "auto", "sampler": None, "validate_args": None}
    keywords = [inspect.Parameter(name, _KEYWORD, default=default) for name, default in policies.items()]
    itself = inspect.Parameter("self", _POSITIONAL)
    signature = inspect.Signature([itself, *required, *others, *keywords], return_annotation=None)
    cls._signature = signature
    if cls.__init__ is base.__init__ or hasattr(cls.__init__, "__signature__"):

        def __init__(self: Any, *arguments: Any, **options: Any) -> None:
            base.__init__(self, *arguments, **options)

        __init__.__qualname__, __init__.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
        __init__.__signature__ = signature  # type: ignore[attr-defined]
        cls.__init__ = __init__


def bind_arguments(instance: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all parameters and options by name; what is wrong raises the ``TypeError`` that Python would."""
    try:
        bound = type(instance)._signature.bind(instance, *arguments, **named)
    except TypeError as error:
        raise TypeError(f"{type(instance).__name__}: {error}") from None
    bound.apply_defaults()
    return bound.arguments


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
