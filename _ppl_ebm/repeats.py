"""Columns of data whose values come back: a density may rise there without bound, and score matching with it.

Score matching of data with a constant or discrete coordinate has no minimum: a score that falls ever more steeply
through such a value takes the criterion to minus infinity.
"""

import math
import warnings
from collections.abc import Hashable

import numpy as np

#: Rows that tell; fewer may agree by chance or by design.
MIN_ROWS = 50
#: Rows that are looked at.
MAX_ROWS = 256
#: Pairs that agree in a column whose values are called discrete, at least, and their share.
MIN_PAIRS, SHARE = 4, 1 / 20
_MAX_NAMED = 10
_NAMED: dict[Hashable, set[int]] = {}  # columns of earlier batches, by criterion and shape


def repeated_columns(rows: np.ndarray) -> list[int]:
    """Columns whose values come back, constant ones among them.

    Row ``i`` is compared with row ``i + n // 2``: of continuous data no such pair agrees (of 32 bits, in a column of
    128 pairs, with a probability of 1e-5; four pairs with 1e-22), of binary ones half of them.

    :param rows: shape ``(n, D)``; the first 256 are looked at, and nothing is said of fewer than 50.

    >>> rows = np.random.default_rng(0).normal(size=(100, 3))
    >>> repeated_columns(np.concatenate([rows, rows[:, :1] > 0, 0 * rows[:, :1]], 1))
    [3, 4]
    """
    rows = rows[:MAX_ROWS]
    if len(rows) < MIN_ROWS:
        return []
    half = len(rows) // 2
    num_equal = np.count_nonzero(rows[:half] == rows[half : 2 * half], 0)
    return np.flatnonzero(num_equal >= max(MIN_PAIRS, SHARE * half)).tolist()


def warn_of_repeats(owner: str, value: np.ndarray, num_core_dims: int, stacklevel: int) -> None:
    """Warn of data that have no density, which ``owner`` asks for.

    Batches of the same data get the same text, so that the filters of warnings show it once: what shares a column with
    earlier batches names all of theirs.

    :param value: data, of which the last ``num_core_dims`` dimensions, of models and of one value, are the columns.
    """
    shape = value.shape[value.ndim - num_core_dims :]
    columns = set(repeated_columns(value.reshape(-1, math.prod(shape))))
    if columns:
        earlier = _NAMED.get((owner, shape), set())
        columns |= earlier if earlier & columns else set()
        _NAMED[owner, shape] = columns
        warnings.warn(
            f"value: {owner} expected data with a density, got constant or repeated values in column "
            f"{_places(sorted(columns), shape)}; where the model can narrow there, the criterion falls without bound. "
            "Add noise to the data, drop constant columns, or keep the model's scale from below; for discrete data "
            "take PseudoLikelihood or a contrastive criterion",
            stacklevel=stacklevel + 1,
        )


def _places(columns: list[int], shape: tuple[int, ...]) -> str:
    """``columns`` of flattened values, as indices of ``shape``; of many, the first."""
    indices = np.unravel_index(columns[:_MAX_NAMED], shape)
    places = [str(place[0] if len(place) == 1 else tuple(place)) for place in np.stack(indices, -1).tolist()]
    more = f" and {len(columns) - _MAX_NAMED} more" if len(columns) > _MAX_NAMED else ""
    return f"{', '.join(places)}{more}"
