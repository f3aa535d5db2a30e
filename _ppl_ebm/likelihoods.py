"""Likelihoods of autoencoders: what stands for which, and what is said about data that have no density under one."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

from _ppl_ebm.checks import check_choice, check_positive

Likelihood = TypeVar("Likelihood")
#: What a decoder returns for binary data and data in the unit interval.
DecoderOutput: TypeAlias = Literal["logits", "probabilities"]
DECODER_OUTPUTS: tuple[DecoderOutput, ...] = ("logits", "probabilities")


def resolve_likelihood(
    likelihood: object,
    named: Mapping[str, Callable[[], Likelihood]],
    of_function: Callable[[Callable[..., Any]], Likelihood],
    of_scale: Callable[[float], Likelihood],
) -> Likelihood:
    """The likelihood that a name, a positive number or a function stands for.

    :param likelihood: what a user gave.
    :param named: makes those that have a name.
    :param of_function: makes that of a function from the decoder's outputs to a distribution.
    :param of_scale: makes the normal one of a standard deviation.
    :raises TypeError: for anything else.
    :raises ValueError: for an unknown name or a number that is not positive.

    >>> resolve_likelihood("normal", {"normal": lambda: "learned"}, repr, str), resolve_likelihood(2, {}, repr, str)
    ('learned', '2.0')
    """
    if isinstance(likelihood, str):
        if likelihood not in named:
            raise ValueError(f"likelihood: expected one of {', '.join(map(repr, named))}, got {likelihood!r}")
        return named[likelihood]()
    if callable(likelihood) and not isinstance(likelihood, type):
        return of_function(likelihood)
    if isinstance(likelihood, bool) or not isinstance(likelihood, (int, float)):
        raise TypeError(
            "likelihood: expected a name, a positive number (a standard deviation) or a function from the decoder's "
            f"outputs to a distribution, got {likelihood!r}"
        )
    check_positive("likelihood", likelihood)
    return of_scale(float(likelihood))


def check_decoder_output(owner: str, decoder_output: DecoderOutput, reads_probabilities: bool) -> None:
    """Refuse what a decoder's outputs cannot be.

    :param reads_probabilities: whether the likelihood reads them so.
    """
    check_choice("decoder_output", owner, decoder_output, DECODER_OUTPUTS)
    if decoder_output == "probabilities" and not reads_probabilities:
        raise ValueError(
            f'decoder_output: {owner} expected "logits" unless the likelihood is "bernoulli" or '
            f'"continuous_bernoulli", got {decoder_output!r}'
        )


def not_probabilities(low: float, high: float) -> ValueError:
    """The error of a decoder's outputs between ``low`` and ``high`` that are not all probabilities."""
    return ValueError(
        f'decoder: decoder_output="probabilities" expected outputs from 0 to 1, got values from {low:g} to {high:g}'
    )


def not_a_number(name: str = "decoder") -> ValueError:
    """The error of a decoder's outputs that are NaN at finite z."""
    return ValueError(f"{name}: expected finite outputs for finite z, got NaN")


def not_binary(low: float, high: float) -> ValueError:
    """The error of data between ``low`` and ``high`` that are not all zeros and ones."""
    if math.isnan(low):
        return ValueError('x: likelihood="bernoulli" expected zeros and ones, got NaN among them')
    return ValueError(
        f'x: likelihood="bernoulli" expected zeros and ones, got values from {low:g} to {high:g}; grey values have no '
        "density under it: binarise them (x > 0.5, or draws with probability x), or use "
        'likelihood="continuous_bernoulli"'
    )


def outside_unit_interval(low: float, high: float) -> ValueError:
    """The error of data between ``low`` and ``high``, where these are not from 0 to 1."""
    if math.isnan(low):
        return ValueError('x: likelihood="continuous_bernoulli" expected values from 0 to 1, got NaN among them')
    return ValueError(
        f'x: likelihood="continuous_bernoulli" expected values from 0 to 1, got values from {low:g} to {high:g}; '
        'rescale them, or use likelihood="normal"'
    )


def not_finite() -> ValueError:
    """The error of data that are not finite numbers."""
    return ValueError("x: a normal likelihood expected finite values, got NaN or infinite ones")


def check_pair(shapes: list[tuple[int, ...]]) -> None:
    """Refuse a decoder's outputs that are no locations and log standard deviations."""
    if len(shapes) != 2 or shapes[0] != shapes[1]:
        raise ValueError(
            f"decoder: a normal likelihood expected locations and log standard deviations of one shape, got shapes "
            f"{shapes}"
        )


def check_made(batch_shape: tuple[int, ...], lead: tuple[int, ...]) -> None:
    """Refuse a distribution of data whose batch dimensions do not begin with those of the latent variables."""
    if tuple(batch_shape[: len(lead)]) != tuple(lead):
        raise ValueError(
            f"likelihood: expected a distribution with the leading batch shape {tuple(lead)}, got {tuple(batch_shape)}"
        )
