"""Checks of plain arguments: each names the argument, what was expected and what came."""

import math
from collections.abc import Sequence

import numpy as np


def check_positive_int(name: str, value: object) -> None:
    """Refuse anything but a positive integer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")


def check_count(name: str, value: object) -> None:
    """Refuse anything but an integer that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"{name}: expected a non-negative integer, got {value!r}")


def check_positive(name: str, value: object) -> None:
    """Refuse anything but a positive, finite number."""
    if not 0 < _number(name, value, "a positive number") < math.inf:
        raise ValueError(f"{name}: expected a positive number, got {value!r}")


def check_between(name: str, value: object, low: float, high: float) -> None:
    """Refuse anything but a number from ``low`` to ``high``, neither of which is excluded."""
    if not low <= _number(name, value, f"a number from {low} to {high}") <= high:
        raise ValueError(f"{name}: expected a number from {low} to {high}, got {value!r}")


def check_probability(name: str, value: object) -> None:
    """Refuse anything but a number between 0 and 1, both of which are excluded."""
    if not 0 < _number(name, value, "a number between 0 and 1") < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, got {value!r}")


def check_choice(name: str, owner: str, value: object, choices: Sequence[str]) -> None:
    """Refuse anything but one of ``choices``.

    >>> check_choice("estimator", "divergence", "exakt", ("exact", "hutchinson"))
    Traceback (most recent call last):
    ValueError: estimator: divergence expected "exact" or "hutchinson", got 'exakt'
    """
    if not isinstance(value, str) or value not in choices:
        *others, last = (f'"{choice}"' for choice in choices)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{name}: {owner} expected {expected}, got {value!r}")


def _number(name: str, value: object, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    return float(value)


def check_flag(name: str, value: object) -> bool:
    """``value`` itself, unless it is anything but ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


def check_same_density(expected: np.ndarray, found: np.ndarray) -> None:
    """Refuse to go on with a chain whose log-densities are those of another model.

    Rounding is let pass: half of the digits of the floating-point type must agree.

    >>> check_same_density(np.zeros(2), np.ones(2))
    Traceback (most recent call last):
    ValueError: resume: expected the state of a run of this distribution, got log-densities that differ by up to 1.0
    """
    tolerance = math.sqrt(np.finfo(found.dtype).eps)
    if not np.allclose(expected, found, rtol=tolerance, atol=tolerance, equal_nan=True):
        difference = np.abs(expected - found).max()
        raise ValueError(
            "resume: expected the state of a run of this distribution, got log-densities that differ by up to "
            f"{difference:.3}"
        )


def check_reached(energy: object, num_lost: int, num_chains: int) -> None:
    """Refuse draws of which some come from chains that found no finite energy.

    :param energy: the distribution.

    >>> check_reached(object(), 3, 100)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: sampler: expected chains that reach a finite energy of object, got 3 of 100 that did not; ...
    """
    if num_lost:
        raise ValueError(
            f"sampler: expected chains that reach a finite energy of {type(energy).__name__}, got {num_lost} of "
            f"{num_chains} that did not; its starting points are outside the support: give the family initial(), or "
            "run_chain starts with initial="
        )
