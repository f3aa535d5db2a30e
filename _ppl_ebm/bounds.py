"""What is said of stochastic bounds on log Z that are none."""

import warnings
from collections.abc import Sequence

import numpy as np

from _ppl_ebm.shapes import commas

#: A lower bound above the upper one by more than so many standard errors is no chance.
MAX_Z = 4.5


def warn_of_estimate(family: str) -> None:
    """Say that reverse chains do not start from exact draws.

    :param family: the distribution's class.
    """
    warnings.warn(
        f"log_partition_bounds: {family} has no exact draws to start reverse chains from, so that upper is an estimate "
        "and no bound: chains that all miss a mode make both values too small, and alike. Give start=: draws of a "
        "tempered run, or data",
        stacklevel=4,
    )


def check_start(shape: Sequence[int], model_shape: Sequence[int]) -> None:
    """Refuse starts that are not draws of all models.

    >>> check_start((100, 3), (2, 3))
    Traceback (most recent call last):
    ValueError: start: expected shape (n, 2, 3), got (100, 3)
    """
    if len(shape) != len(model_shape) + 1 or tuple(shape[1:]) != tuple(model_shape) or not shape[0]:
        raise ValueError(f"start: expected shape (n, {commas(model_shape)}), got {tuple(shape)}")


def check_agreement(family: str, lower: np.ndarray, upper: np.ndarray, error: np.ndarray) -> None:
    """Refuse bounds that contradict each other.

    :param family: the distribution's class.
    :param error: standard error of their difference.

    >>> check_agreement("BernoulliRBM", np.array(3.0), np.array(1.0), np.array(0.1))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: log_partition_bounds: expected a lower bound below the upper one, got 3.0 and 1.0 for BernoulliRBM, ...
    """
    wrong = lower - upper > MAX_Z * error
    if wrong.any():
        low, high, size = (float(array[wrong][0]) for array in np.broadcast_arrays(lower, upper, error))
        raise ValueError(
            f"log_partition_bounds: expected a lower bound below the upper one, got {low:.4} and {high:.4} for "
            f"{family}, where their difference has standard error {size:.2}: the reverse chains did not start from the "
            "distribution; give start=, draws of a tempered run or data"
        )
