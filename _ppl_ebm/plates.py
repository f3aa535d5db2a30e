"""Plates over data: of all rows, of a random subsample of them, or of a minibatch that stands for more."""

from typing import Any, NamedTuple, Protocol, TypeVar

from _ppl_ebm.checks import check_positive_int


class Rows(Protocol):
    """An array of either backend whose first dimension counts data."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


Array = TypeVar("Array", bound=Rows)


class PlatePlan(NamedTuple):
    """Sizes of a plate over data.

    :param size: how many data the plate stands for.
    :param subsample_size: how many are in it.
    :param is_minibatch: whether these are the rows given; else they are drawn from the rows given.
    """

    size: int
    subsample_size: int
    is_minibatch: bool


def plan_plate(num_rows: int | None, size: int | None, subsample_size: int | None) -> PlatePlan:
    """The plate that arguments of a model and its guide ask for.

    :param num_rows: rows given, of data or of their conditions; ``None``: neither.
    :param size: how many data there are; ``None``: as many as rows.
    :param subsample_size: how many of them to draw; ``None``: all.
    :raises ValueError: for numbers that are not positive integers, or contradict each other.

    >>> plan_plate(100, None, 10)
    PlatePlan(size=100, subsample_size=10, is_minibatch=False)
    >>> plan_plate(10, 100, None)
    PlatePlan(size=100, subsample_size=10, is_minibatch=True)
    """
    for name, number in (("size", size), ("subsample_size", subsample_size)):
        if number is not None:
            check_positive_int(name, number)
    size = _plate_size(num_rows, size)
    if num_rows is not None and num_rows < size:
        if subsample_size not in (None, num_rows):
            raise ValueError(
                f"subsample_size: expected None, because x holds {num_rows} of {size} data and so is a minibatch "
                f"already, got {subsample_size}"
            )
        return PlatePlan(size, num_rows, True)
    if subsample_size is not None and subsample_size > size:
        raise ValueError(f"subsample_size: expected at most the {size} data given, got {subsample_size}")
    return PlatePlan(size, size if subsample_size is None else subsample_size, False)


def _plate_size(num_rows: int | None, size: int | None) -> int:
    if num_rows is None:
        if size is None:
            raise ValueError("size: expected the number of data to draw where x is None, got None")
        return size
    if size is not None and size < num_rows:
        raise ValueError(f"size: expected at least the number of rows, {num_rows}, got {size}")
    return num_rows if size is None else size


def check_rows(name: str, array: Array) -> Array:
    """The array itself, refused unless it has rows."""
    if len(array.shape) == 0 or len(array) == 0:
        raise ValueError(f"{name}: expected shape (N, ...), got {tuple(array.shape)}")
    return array


def count_rows(x: Rows | None, condition: Rows | None) -> int | None:
    """Rows of data and conditions, of which there are as many; ``None`` where there is neither."""
    counts = [len(check_rows(name, array)) for name, array in (("x", x), ("condition", condition)) if array is not None]
    if len(set(counts)) > 1:
        raise ValueError(f"condition: expected one row for each of the {counts[0]} data, got {counts[1]}")
    return counts[0] if counts else None


def rows_of(array: Array, index: Rows) -> Array:
    """The rows of a plate, by its indices: all of them where these are as many.

    >>> import numpy as np
    >>> rows_of(np.arange(3), np.array([2, 0])).tolist()
    [2, 0]
    """
    return array if len(index) == len(array) else array[index]
