"""Checks of parameters and values: each names the argument, what was expected and what came."""

from typing import Any

import torch

from pyro_ebm.distributions.batching import broadcast_shape


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
