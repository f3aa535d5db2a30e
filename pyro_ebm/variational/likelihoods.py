"""Distributions of data given what a decoder returns: binary, in the unit interval, real, or any of the host's.

A likelihood makes a host distribution of the decoder's raw output, with one value for each datum, and checks data
before they are observed under it. ``VAE`` makes likelihoods of names, numbers and functions, and takes any of its own.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import Distribution

import _ppl_ebm.likelihoods as shared
from _ppl_ebm.autoencoders import check_event
from _ppl_ebm.checks import check_positive
from pyro_ebm.distributions.batching import is_concrete

#: What a decoder returns, one tensor or several.
Raw: TypeAlias = torch.Tensor | Sequence[torch.Tensor]


class Likelihood(torch.nn.Module):
    """The base: from a decoder's raw output to a host distribution, and a check of data."""

    #: Whether the decoder's outputs are logits, which would not all be in the unit interval.
    reads_logits: bool = False

    def distribution(self, raw: Raw) -> TorchDistribution:
        """The distribution of data; dimensions of a datum may still count as batch dimensions.

        :param raw: what the decoder returned, one tensor or several.
        """
        raise NotImplementedError(f"{type(self).__name__} must define distribution(raw)")

    def check(self, value: torch.Tensor) -> None:
        """Raise ``ValueError`` for data that cannot come from this likelihood."""


class Bernoulli(Likelihood):
    """Binary data.

    :param decoder_output: ``"logits"``, what the decoder returns, or ``"probabilities"``, from 0 to 1.
    :raises ValueError: for another name; on use, for outputs out of range (NaN where traced).

    >>> import torch
    >>> from pyro_ebm.variational.likelihoods import Bernoulli
    >>> print(Bernoulli().distribution(torch.zeros(2)).log_prob(torch.tensor([0.0, 1.0])))
    tensor([-0.6931, -0.6931])
    """

    def __init__(self, decoder_output: shared.DecoderOutput = "logits") -> None:
        super().__init__()
        shared.check_decoder_output("Bernoulli", decoder_output, True)
        self.decoder_output, self.reads_logits = decoder_output, decoder_output == "logits"

    def distribution(self, raw: Raw) -> TorchDistribution:
        if self.reads_logits:
            return dist.Bernoulli(logits=_tensor(raw))
        return dist.Bernoulli(probs=_probabilities(_tensor(raw)))

    def extra_repr(self) -> str:
        return "" if self.reads_logits else repr(self.decoder_output)

    def check(self, value: torch.Tensor) -> None:
        if (value * value - value).abs().max() != 0:  # also for NaN and infinity; the cheapest test of many
            raise shared.not_binary(*_range(value))


class ContinuousBernoulli(Likelihood):
    """Data in the unit interval, with the normaliser that makes it a density (Loaiza-Ganem & Cunningham 2019).

    :param decoder_output: ``"logits"``, what the decoder returns, or ``"probabilities"``, from 0 to 1,
        whose logits are the natural parameters (and which are not the means).
    :raises ValueError: for another name; on use, for outputs out of range (NaN where traced).

    >>> import torch
    >>> from pyro_ebm.variational.likelihoods import ContinuousBernoulli
    >>> print(f"{ContinuousBernoulli().distribution(torch.tensor(2.0)).log_prob(torch.tensor(0.5)):.4f}")
    -0.1614
    """

    def __init__(self, decoder_output: shared.DecoderOutput = "logits") -> None:
        super().__init__()
        shared.check_decoder_output("ContinuousBernoulli", decoder_output, True)
        self.decoder_output, self.reads_logits = decoder_output, decoder_output == "logits"

    def distribution(self, raw: Raw) -> TorchDistribution:
        if self.reads_logits:
            return dist.ContinuousBernoulli(logits=_tensor(raw))
        return dist.ContinuousBernoulli(probs=_probabilities(_tensor(raw)))

    def extra_repr(self) -> str:
        return "" if self.reads_logits else repr(self.decoder_output)

    def check(self, value: torch.Tensor) -> None:
        if not ((value >= 0) & (value <= 1)).all():
            raise shared.outside_unit_interval(*_range(value))


class Normal(Likelihood):
    """Real data with independent normal noise of a fixed or learned standard deviation, in units of the data.

    :param scale: the standard deviation of all entries, a positive number; ``None``: it is learned. Then the decoder
        returns either a pair, locations and log standard deviations, or the locations alone, beside which one standard
        deviation for all is learned, whose logarithm ``log_scale`` starts at 0.
    :raises TypeError: for a ``scale`` that is no number.
    :raises ValueError: for one out of range; on use, for a pair of different shapes.

    >>> import torch
    >>> from pyro_ebm.variational.likelihoods import Normal
    >>> fixed, learned = Normal(0.5), Normal()
    >>> fixed.distribution(torch.zeros(2)).variance, learned.distribution((torch.ones(1), torch.zeros(1))).variance
    (tensor([0.2500, 0.2500]), tensor([1.]))
    """

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        if scale is None:
            self.log_scale = torch.nn.Parameter(torch.zeros(()))
        else:
            check_positive("scale", scale)
        self.scale = scale

    def distribution(self, raw: Raw) -> TorchDistribution:
        if self.scale is None and isinstance(raw, (tuple, list)):
            shared.check_pair([tuple(_tensor(part).shape) for part in raw])
            return dist.Normal(raw[0], raw[1].exp())
        return dist.Normal(_tensor(raw), self.log_scale.exp() if self.scale is None else self.scale)

    def check(self, value: torch.Tensor) -> None:
        if not torch.isfinite(value).all():
            raise shared.not_finite()

    def extra_repr(self) -> str:
        return "" if self.scale is None else f"{self.scale}"


class Custom(Likelihood):
    """Any host distribution.

    :param function: maps the decoder's raw output, with all its batch dimensions, to it; a ``torch.nn.Module`` may have
        parameters of its own.

    >>> import torch
    >>> import pyro.distributions as dist
    >>> from pyro_ebm.variational.likelihoods import Custom
    >>> print(Custom(lambda raw: dist.Poisson(raw.exp())).distribution(torch.zeros(2)).mean)
    tensor([1., 1.])
    """

    def __init__(self, function: Callable[[Raw], TorchDistribution]) -> None:
        super().__init__()
        self.function = function

    def distribution(self, raw: Raw) -> TorchDistribution:
        made = self.function(raw)
        if not isinstance(made, Distribution):
            raise TypeError(f"likelihood: expected a function to a Pyro distribution, got {made!r} from it")
        return made

    def extra_repr(self) -> str:
        return "" if isinstance(self.function, torch.nn.Module) else f"{self.function!r}"


_NAMED: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "normal": Normal,
}
_OF_PROBABILITIES: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": functools.partial(Bernoulli, "probabilities"),
    "continuous_bernoulli": functools.partial(ContinuousBernoulli, "probabilities"),
}


def resolve_likelihood(
    likelihood: Likelihood | str | float | Callable[[Raw], TorchDistribution],
    owner: str,
    decoder_output: shared.DecoderOutput,
) -> Likelihood:
    """A likelihood itself, or what a name, a positive number or a function stands for.

    :param owner: the model's class.
    :param decoder_output: what the decoder returns, which a likelihood itself knows.
    """
    shared.check_decoder_output(owner, decoder_output, _reads_probabilities(likelihood))
    if decoder_output == "probabilities" and isinstance(likelihood, str):
        return _OF_PROBABILITIES[likelihood]()
    if isinstance(likelihood, Likelihood):
        return likelihood
    return shared.resolve_likelihood(likelihood, _NAMED, Custom, Normal)


class _OfData(dist.Independent):
    """Independent entries of data, which are refused, not broadcast, if they have another shape."""

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        check_event(value.shape, self.event_shape)
        return super().log_prob(value)


def of_data(made: TorchDistribution, num_dims: int) -> TorchDistribution:
    """A distribution with so many batch dimensions made dimensions of a datum."""
    return _OfData(made, num_dims) if num_dims else made


def _reads_probabilities(likelihood: object) -> bool:
    if isinstance(likelihood, (Bernoulli, ContinuousBernoulli)):
        return likelihood.decoder_output == "probabilities"
    return isinstance(likelihood, str) and likelihood in _OF_PROBABILITIES


def _tensor(raw: Raw) -> torch.Tensor:
    if not isinstance(raw, torch.Tensor):
        raise TypeError(f"decoder: this likelihood expected one tensor of raw parameters, got {type(raw).__name__}")
    return raw


def _probabilities(raw: torch.Tensor) -> torch.Tensor:
    """Outputs themselves, NaN where they are traced and no probabilities."""
    is_probability = (raw >= 0) & (raw <= 1)
    if is_concrete(is_probability) and not is_probability.all():
        raise shared.not_probabilities(*_range(raw))
    return torch.where(is_probability, raw, torch.nan)


def _range(value: torch.Tensor) -> tuple[float, float]:
    return value.min().item(), value.max().item()
