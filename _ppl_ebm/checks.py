"""Checks of plain arguments: each names the argument, what was expected and what came."""

import math
import warnings
from collections.abc import Sequence

import numpy as np

from _ppl_ebm.limits import MEMORY_THRESHOLD


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


def check_not_empty(name: str, owner: str, shape: Sequence[int]) -> None:
    """Refuse data without a row, whose mean is not a number.

    >>> check_not_empty("value", "gradient", (0, 3))
    Traceback (most recent call last):
    ValueError: value: gradient expected at least one datum, got shape (0, 3)
    """
    if 0 in shape:
        raise ValueError(f"{name}: {owner} expected at least one datum, got shape {tuple(shape)}")


def are_equal_densities(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether log-densities at the same places are those of one model: half of their digits agree.

    >>> are_equal_densities(np.zeros(2), np.full(2, 1e-10)), are_equal_densities(np.zeros(2), np.ones(2))
    (True, False)
    """
    tolerance = math.sqrt(np.finfo(one.dtype).eps)
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def warn_of_memory(energy: object, chain: object, num_steps: int, memory: float, correlation: float) -> None:
    """Warn where the ends of chains depend on where they started.

    :param chain: the sampler.
    :param memory: the correlation of starts and ends in standard errors.
    """
    if memory > MEMORY_THRESHOLD:
        warnings.warn(
            f"sampler: expected chains of {type(energy).__name__} that forget where they started, got ends after "
            f"{num_steps} steps of {type(chain).__name__} whose correlation with their starts is {correlation:.2f} "
            f"({memory:.0f} standard errors): the density has modes between which they do not move, or num_steps is "
            "too small, and how many draws lie where is an accident of the starts. Remedies: more steps, "
            "ParallelTempering, an exact sampler",
            stacklevel=4,
        )


def check_reached(name: str, energy: object, num_lost: int, num_chains: int) -> None:
    """Refuse chains of which some are where the energy is not finite.

    :param name: the argument that put them there.
    :param energy: the distribution.

    >>> check_reached("sampler", object(), 3, 100)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: sampler: expected chains where the energy of object is finite, got 3 of 100 where it is not; ...
    """
    if num_lost:
        raise ValueError(
            f"{name}: expected chains where the energy of {type(energy).__name__} is finite, got {num_lost} of "
            f"{num_chains} where it is not; give the family an initial() inside its support, or run_chain its initial="
        )
