"""Normal distributions: a constant of theirs, and how networks parametrise them."""

import math
from typing import Literal, TypeAlias

Covariance: TypeAlias = Literal["diagonal", "full"]
COVARIANCES: tuple[Covariance, ...] = ("diagonal", "full")
LOG_2PI = math.log(2 * math.pi)


def output_size(size: int, covariance: Covariance = "diagonal") -> int:
    """How many numbers parametrise a normal distribution.

    :param size: its dimensions.
    :param covariance: ``"diagonal"``: locations, then log standard deviations; ``"full"``: locations, then the rows of
        the lower-triangular factor of the covariance, of whose diagonal these are the logarithms.

    >>> output_size(3), output_size(3, "full")
    (6, 9)
    """
    return 2 * size if covariance == "diagonal" else size + size * (size + 1) // 2


def check_output(name: str, shape: tuple[int, ...], size: int, covariance: Covariance) -> None:
    """Refuse a network's output of another size.

    :param name: the network's name in messages.
    """
    expected = output_size(size, covariance)
    if tuple(shape[-1:]) != (expected,):
        raise ValueError(
            f"{name}: expected an output of shape (..., {expected}), which parametrises a normal distribution of "
            f"{size} dimensions with {covariance} covariance, got {tuple(shape)}"
        )
