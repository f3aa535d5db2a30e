"""How a family's parameters become a constructor: one signature, shapes and messages for every family."""

import inspect
from typing import Any

import torch

from pyro_ebm.distributions.tensors import broadcast_shape

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
    cls._signature = inspect.Signature([*required, *others, *keywords], return_annotation=None)
    cls._argument_names = tuple(argument.name for argument in (*required, *others))
    cls._argument_defaults = defaults | policies
    if cls.__init__ is base.__init__ or hasattr(cls.__init__, "__signature__"):
        cls.__init__ = _constructor(cls, base)


def _constructor(cls: Any, base: Any) -> Any:
    """An ``__init__`` that passes everything to ``base``, and shows the signature of ``cls``."""

    def __init__(self: Any, *arguments: Any, **options: Any) -> None:
        base.__init__(self, *arguments, **options)

    itself = inspect.Parameter("self", _POSITIONAL)
    signature = cls._signature.replace(parameters=[itself, *cls._signature.parameters.values()])
    __init__.__qualname__, __init__.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


def bind_arguments(instance: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Values of all parameters and options by name; what is wrong raises the ``TypeError`` that Python would.

    Pyro constructs a distribution at every step, for which :meth:`inspect.Signature.bind` is too slow.
    """
    cls = type(instance)
    given = dict(zip(cls._argument_names, arguments, strict=False)) | named
    values = cls._argument_defaults | given
    if len(given) != len(arguments) + len(named) or values.keys() != cls._signature.parameters.keys():
        _refuse(cls, arguments, named)
    return values


def _refuse(cls: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Raise Python's own error for arguments that do not fit the signature."""
    try:
        cls._signature.bind(*arguments, **named)
    except TypeError as error:
        raise TypeError(f"{cls.__name__}: {error}") from None


def check_shape(
    name: str, shape: torch.Size, dims: tuple[str, ...], sizes: dict[str, int], batch_shape: torch.Size
) -> torch.Size:
    """Bind the sizes of ``dims`` and return the joint batch shape; one message for every way a shape can be wrong."""
    lead, core = shape[: max(0, len(shape) - len(dims))], shape[max(0, len(shape) - len(dims)) :]
    fits = len(core) == len(dims) and all(
        sizes.setdefault(dim, int(size)) == size for dim, size in zip(dims, core, strict=True)
    )
    if not fits:
        expected = commas(f"{dim}={sizes[dim]}" if dim in sizes else dim for dim in dims)
        raise ValueError(f"{name}: expected shape (..., {expected}), got {tuple(shape)}")
    return check_broadcast(name, lead, batch_shape)


def check_broadcast(name: str, shape: torch.Size, batch_shape: torch.Size) -> torch.Size:
    """The joint batch shape, or an error that names the argument."""
    joint = broadcast_shape(shape, batch_shape)
    if joint is None:
        raise ValueError(
            f"{name}: expected batch dimensions that broadcast with {tuple(batch_shape)}, got {tuple(shape)}"
        )
    return joint


def check_constraint(owner: str, name: str, value: torch.Tensor, constraint: Any) -> None:
    """Refuse entries that are not finite or outside ``constraint``."""
    if value.numel() == 0:
        return
    finite = torch.isfinite(value)
    if not finite.all():
        raise ValueError(f"{name}: {owner} expected finite entries, got {int((~finite).sum())} NaN or infinite")
    if not constraint.check(value).all():
        raise ValueError(f"{name}: {owner} expected {constraint}, got entries {_range(value)}")


def check_support(owner: str, name: str, value: torch.Tensor, support: Any) -> None:
    """Refuse values that are not finite or outside the support."""
    if value.numel() and not (torch.isfinite(value).all() and support.check(value).all()):
        raise ValueError(f"{name}: {owner} expected values in its support {support}, got entries {_range(value)}")


def _range(value: torch.Tensor) -> str:
    numbers = value.detach().double()
    return f"from {numbers.min().item()} to {numbers.max().item()}"


def commas(items: Any) -> str:
    """Items in one line."""
    return ", ".join(str(item) for item in items)
