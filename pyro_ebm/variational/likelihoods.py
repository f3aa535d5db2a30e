"""Distributions of data given what a decoder returns: binary, in the unit interval, real, or any of the host's.

A likelihood is a module that maps the decoder's raw output to a host distribution with one value for each datum, and
that checks data before they are observed under it.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro import distributions as dist
from torch.distributions import Distribution

from _ppl_ebm.checks import check_positive


class Likelihood(torch.nn.Module):
    """The base: a module from a decoder's raw output to a host distribution, and a check of data."""

    def forward(self, raw: Any) -> Distribution:
        """The distribution of data; dimensions of a datum may still count as batch dimensions.

        :param raw: what the decoder returned, one tensor or several.
        """
        raise NotImplementedError

    def check(self, value: torch.Tensor) -> None:
        """Raise ``ValueError`` for data that cannot come from this likelihood."""


class Bernoulli(Likelihood):
    """Binary data; the decoder returns logits.

    >>> import torch
    >>> from pyro_ebm.variational.likelihoods import Bernoulli
    >>> print(Bernoulli()(torch.zeros(2)).log_prob(torch.tensor([0.0, 1.0])))
    tensor([-0.6931, -0.6931])
    """

    def forward(self, raw: Any) -> Distribution:
        return dist.Bernoulli(logits=_tensor(raw))

    def check(self, value: torch.Tensor) -> None:
        if (value * value - value).abs().max() != 0:  # also for NaN and infinity; the cheapest test of many
            raise ValueError(
                f'x: likelihood="bernoulli" expected zeros and ones, got values {_range(value)}; grey values have no '
                "density under it: binarise them (x > 0.5, or draws with probability x), or use "
                'likelihood="continuous_bernoulli"'
            )


class ContinuousBernoulli(Likelihood):
    """Data in the unit interval, with the normaliser that makes it a density (Loaiza-Ganem & Cunningham 2019).

    The decoder returns logits.

    >>> import torch
    >>> from pyro_ebm.variational.likelihoods import ContinuousBernoulli
    >>> print(ContinuousBernoulli()(torch.tensor(2.0)).log_prob(torch.tensor(0.5)))
    tensor(-0.1614)
    """

    def forward(self, raw: Any) -> Distribution:
        return dist.ContinuousBernoulli(logits=_tensor(raw))

    def check(self, value: torch.Tensor) -> None:
        if not ((value >= 0) & (value <= 1)).all():
            raise ValueError(
                f'x: likelihood="continuous_bernoulli" expected values from 0 to 1, got values {_range(value)}; '
                'rescale them, or use likelihood="normal"'
            )


class Normal(Likelihood):
    """Real data with independent normal noise of a fixed or learned standard deviation, in units of the data.

    :param scale: the standard deviation of all entries, a positive number; ``None``: it is learned. Then the decoder
        returns either a pair, locations and log standard deviations, or the locations alone, beside which one standard
        deviation for all is learned, whose logarithm ``log_scale`` starts at 0.
    :raises TypeError: for a ``scale`` that is no number.
    :raises ValueError: for one out of range; on use, for a pair of different shapes.

    >>> import torch
    >>> from pyro_ebm.variational.likelihoods import Normal
    >>> Normal(0.5)(torch.zeros(2)).stddev, Normal()((torch.zeros(2), torch.ones(2))).stddev
    (tensor([0.5000, 0.5000]), tensor([2.7183, 2.7183]))
    """

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        if scale is None:
            self.log_scale = torch.nn.Parameter(torch.zeros(()))
        else:
            check_positive("scale", scale)
        self.scale = scale

    def forward(self, raw: Any) -> Distribution:
        if self.scale is None and isinstance(raw, (tuple, list)):
            loc, log_scale = _pair(raw)
            return dist.Normal(loc, log_scale.exp())
        scale: Any = self.log_scale.exp() if self.scale is None else self.scale
        return dist.Normal(_tensor(raw), scale)

    def check(self, value: torch.Tensor) -> None:
        if not torch.isfinite(value).all():
            raise ValueError("x: a normal likelihood expected finite values, got NaN or infinite ones")


class Custom(Likelihood):
    """Any host distribution.

    :param function: maps the decoder's raw output to it; a ``torch.nn.Module`` may have parameters of its own.

    >>> import torch
    >>> from pyro import distributions as dist
    >>> from pyro_ebm.variational.likelihoods import Custom
    >>> Custom(lambda raw: dist.Poisson(raw.exp()))(torch.zeros(2)).mean
    tensor([1., 1.])
    """

    def __init__(self, function: Callable[[Any], Distribution]) -> None:
        super().__init__()
        self.function = function

    def forward(self, raw: Any) -> Distribution:
        distribution = self.function(raw)
        if not isinstance(distribution, dist.Distribution):
            raise TypeError(f"likelihood: expected a function to a Pyro distribution, got {distribution!r} from it")
        return distribution  # type: ignore[return-value]


_NAMES: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "normal": Normal,
}


def resolve_likelihood(likelihood: Any) -> Likelihood:
    """The likelihood that a name, a positive number or a function stands for."""
    if isinstance(likelihood, str):
        if likelihood not in _NAMES:
            raise ValueError(f"likelihood: expected one of {', '.join(map(repr, _NAMES))}, got {likelihood!r}")
        return _NAMES[likelihood]()
    if callable(likelihood) and not isinstance(likelihood, type):
        return Custom(likelihood)
    if isinstance(likelihood, bool) or not isinstance(likelihood, (int, float)):
        raise TypeError(
            "likelihood: expected a name, a positive number (a standard deviation) or a function from the decoder's "
            f"outputs to a distribution, got {likelihood!r}"
        )
    check_positive("likelihood", likelihood)
    return Normal(float(likelihood))


def _pair(raw: Any) -> tuple[torch.Tensor, torch.Tensor]:
    if len(raw) != 2 or _tensor(raw[0]).shape != _tensor(raw[1]).shape:
        raise ValueError(
            "decoder: a normal likelihood expected locations and log standard deviations of one shape, got shapes "
            f"{[tuple(part.shape) for part in raw]}"
        )
    return raw[0], raw[1]


def _tensor(raw: Any) -> torch.Tensor:
    if not isinstance(raw, torch.Tensor):
        raise TypeError(f"decoder: this likelihood expected one tensor of raw parameters, got {type(raw).__name__}")
    return raw


def _range(value: torch.Tensor) -> str:
    return f"from {value.min().item():g} to {value.max().item():g}"
