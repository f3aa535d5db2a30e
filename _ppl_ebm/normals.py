"""Normal distributions: a constant of theirs, and how networks parametrise them."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from _ppl_ebm.checks import check_choice

Covariance: TypeAlias = Literal["diagonal", "full"]
COVARIANCES: tuple[Covariance, ...] = ("diagonal", "full")
#: What an encoder's second outputs are.
EncoderOutput: TypeAlias = Literal["log_scale", "scale", "variance"]
ENCODER_OUTPUTS: tuple[EncoderOutput, ...] = ("log_scale", "scale", "variance")
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


def check_rows_of_output(name: str, shape: tuple[int, ...], num_rows: int) -> None:
    """Refuse a network's output, by its shape, that is not one vector for each row.

    :param name: the network's name in messages.
    """
    if tuple(shape[:-1]) != (num_rows,):
        expected = (num_rows, *shape[-1:])
        raise ValueError(
            f"{name}: expected one vector for each of {num_rows} rows, shape {expected}, got shape {tuple(shape)}"
        )


def check_encoder_output(owner: str, encoder_output: EncoderOutput, covariance: Covariance = "diagonal") -> None:
    """Refuse what an encoder's outputs cannot be."""
    check_choice("encoder_output", owner, encoder_output, ENCODER_OUTPUTS)
    if encoder_output == "variance" and covariance != "diagonal":
        raise ValueError(
            f'encoder_output: {owner} expected "log_scale" or "scale", of the diagonal of the triangular factor, with '
            f"{covariance} covariance, got {encoder_output!r}"
        )


def not_normal(
    name: str, encoder_output: EncoderOutput, num_wrong: int, num_rows: int, bad: Sequence[str]
) -> ValueError:
    """The error of a network whose outputs parametrise no normal distribution, or of its inputs.

    :param name: the network's name in messages.
    :param bad: names of inputs that are not finite themselves.
    """
    if bad:
        return ValueError(f"{bad[0]}: expected finite values, got NaN or infinite ones, of which the {name} makes NaN")
    expected = {
        "log_scale": "finite locations and log standard deviations, whose exp is finite and positive",
        "scale": "finite locations and positive, finite standard deviations",
        "variance": "finite locations and positive, finite variances",
    }[encoder_output]
    return ValueError(f"{name}: expected {expected}, got others for {num_wrong} of {num_rows} rows")
