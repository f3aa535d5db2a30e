"""Checks of plain numbers: each names the argument, what was expected and what came."""

import math
from typing import Any

import numpy as np


def check_positive_int(name: str, value: Any) -> None:
    """Refuse anything but a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")


def check_count(name: str, value: Any) -> None:
    """Refuse anything but an integer that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}: expected a non-negative integer, got {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Refuse anything but a positive, finite number."""
    _check_number(name, value, "a positive number")
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a positive number, got {value!r}")


def check_between(name: str, value: Any, low: float, high: float) -> None:
    """Refuse anything but a number from ``low`` to ``high``, neither of which is excluded."""
    _check_number(name, value, f"a number from {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low} to {high}, got {value!r}")


def check_probability(name: str, value: Any) -> None:
    """Refuse anything but a number between 0 and 1, both of which are excluded."""
    _check_number(name, value, "a number between 0 and 1")
    if not 0 < value < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, got {value!r}")


def _check_number(name: str, value: Any, expected: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
