"""Checks of parameters and values: each names the argument, what was expected and what came."""

from typing import Any

import torch


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
