"""Ladders of inverse temperatures."""

from collections.abc import Sequence

import numpy as np


def check_inverse_temperatures(inverse_temperatures: Sequence[float] | None) -> tuple[float, ...]:
    """A ladder from 1 down, as plain numbers; by default 8 in geometric steps to 0.02."""
    if inverse_temperatures is None:
        return tuple(np.geomspace(1.0, 0.02, 8).tolist())
    ladder = np.asarray(inverse_temperatures, float)
    if ladder.ndim != 1 or len(ladder) < 2 or ladder[0] != 1 or not (np.diff(ladder) < 0).all() or ladder[-1] <= 0:
        raise ValueError(
            "inverse_temperatures: expected at least two numbers that decrease from 1 and stay above 0, got "
            f"{inverse_temperatures!r}"
        )
    return tuple(ladder.tolist())
