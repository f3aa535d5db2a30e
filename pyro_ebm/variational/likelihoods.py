"""Distributions of data given what a decoder returns: binary, in the unit interval, real, or any of the host's.

A likelihood is a module that maps the decoder's raw output to a host distribution with one value for each datum, and
that checks data before they are observed under it.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from pyro import distributions as dist
from torch.distributions import Distribution


class Likelihood(torch.nn.Module):
    """The base: a module from a decoder's raw output to a host distribution, and a check of data."""

    def forward(self, raw: torch.Tensor) -> Distribution:
        """The distribution of data; dimensions of a datum may still count as batch dimensions.

        :param raw: what the decoder returned.
        """
        raise NotImplementedError

    def check(self, value: torch.Tensor) -> None:
        """Raise ``ValueError`` for data that cannot come from this likelihood."""


class BernoulliLikelihood(Likelihood):
    """Binary data; the decoder returns logits.

    >>> import torch
    >>> from pyro_ebm.variational import BernoulliLikelihood
    >>> print(BernoulliLikelihood()(torch.zeros(2)).log_prob(torch.tensor([0.0, 1.0])))
    tensor([-0.6931, -0.6931])
    """

    def forward(self, raw: torch.Tensor) -> Distribution:
        return dist.Bernoulli(logits=raw)

    def check(self, value: torch.Tensor) -> None:
        if not ((value == 0) | (value == 1)).all():
            raise ValueError(
                f'x: the likelihood "bernoulli" expected zeros and ones, got values {_range(value)}; binarise grey '
                'data, by pyro.distributions.Bernoulli(x).sample(), or use likelihood="continuous_bernoulli"'
            )


class ContinuousBernoulliLikelihood(Likelihood):
    """Data in the unit interval, with the normaliser that makes it a density (Loaiza-Ganem & Cunningham 2019).

    The decoder returns logits.

    >>> import torch
    >>> from pyro_ebm.variational import ContinuousBernoulliLikelihood
    >>> print(ContinuousBernoulliLikelihood()(torch.tensor(2.0)).log_prob(torch.tensor(0.5)))
    tensor(-0.1614)
    """

    def forward(self, raw: torch.Tensor) -> Distribution:
        return dist.ContinuousBernoulli(logits=raw)

    def check(self, value: torch.Tensor) -> None:
        if not ((value >= 0) & (value <= 1)).all():
            raise ValueError(
                f'x: the likelihood "continuous_bernoulli" expected values from 0 to 1, got values {_range(value)}; '
                "rescale the data, or use a Normal likelihood"
            )


class NormalLikelihood(Likelihood):
    """Real data with independent normal noise of a fixed or learned standard deviation, in units of the data.

    :param scale: a positive number: that standard deviation; ``"common"``: one learned for all entries, whose logarithm
        ``log_scale`` starts at 0; ``"decoder"``: the decoder returns locations and then, in the second half of its last
        dimension, log standard deviations.
    :raises ValueError: for any other ``scale``; on use, for a decoder with an odd number of outputs.

    >>> import torch
    >>> from pyro_ebm.variational import NormalLikelihood
    >>> NormalLikelihood(0.5)(torch.zeros(2)).stddev, NormalLikelihood("decoder")(torch.ones(2)).stddev
    (tensor([0.5000, 0.5000]), tensor([2.7183]))
    """

    def __init__(self, scale: float | str) -> None:
        super().__init__()
        is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        if scale not in ("common", "decoder") and not (is_number and math.isfinite(scale) and scale > 0):  # type: ignore[arg-type, operator]
            raise ValueError(f'scale: expected a positive number, "common" or "decoder", got {scale!r}')
        self.scale = scale
        if scale == "common":
            self.log_scale = torch.nn.Parameter(torch.zeros(()))

    def forward(self, raw: torch.Tensor) -> Distribution:
        if self.scale == "decoder":
            if raw.shape[-1] % 2:
                raise ValueError(f"decoder: expected an even number of outputs, loc and log scale, got {raw.shape[-1]}")
            loc, log_scale = raw.chunk(2, -1)
            return dist.Normal(loc, log_scale.exp())
        scale: Any = self.log_scale.exp() if self.scale == "common" else self.scale
        return dist.Normal(raw, scale)

    def check(self, value: torch.Tensor) -> None:
        if not torch.isfinite(value).all():
            raise ValueError("x: a normal likelihood expected finite values, got NaN or infinite ones")


class CallableLikelihood(Likelihood):
    """Any host distribution.

    :param function: maps the decoder's raw output to it; a ``torch.nn.Module`` may have parameters of its own.

    >>> import torch
    >>> from pyro import distributions as dist
    >>> from pyro_ebm.variational import CallableLikelihood
    >>> CallableLikelihood(lambda raw: dist.Poisson(raw.exp()))(torch.zeros(2)).mean
    tensor([1., 1.])
    """

    def __init__(self, function: Callable[[torch.Tensor], Distribution]) -> None:
        super().__init__()
        self.function = function

    def forward(self, raw: torch.Tensor) -> Distribution:
        distribution = self.function(raw)
        if not isinstance(distribution, dist.Distribution):
            raise TypeError(f"likelihood: expected a function to a Pyro distribution, got {distribution!r} from it")
        return distribution  # type: ignore[return-value]


def resolve_likelihood(likelihood: Any) -> Likelihood:
    """The module that ``likelihood=`` stands for.

    :param likelihood: ``"bernoulli"``, ``"continuous_bernoulli"``, ``"normal"`` (the decoder gives the scale), a
        positive number, a callable, or a likelihood of this module.
    :raises TypeError: for anything else.
    :raises ValueError: for an unknown name, or a number that is not positive.

    >>> from pyro_ebm.variational.likelihoods import resolve_likelihood
    >>> type(resolve_likelihood(0.1)).__name__
    'NormalLikelihood'
    """
    named: dict[str, Callable[[], Likelihood]] = {
        "bernoulli": BernoulliLikelihood,
        "continuous_bernoulli": ContinuousBernoulliLikelihood,
        "normal": functools.partial(NormalLikelihood, "decoder"),
    }
    if isinstance(likelihood, str) and likelihood in named:
        return named[likelihood]()
    if isinstance(likelihood, str):
        raise ValueError(f"likelihood: expected one of {', '.join(map(repr, named))}, got {likelihood!r}")
    if isinstance(likelihood, (int, float)) and not isinstance(likelihood, bool):
        if not (math.isfinite(likelihood) and likelihood > 0):
            raise ValueError(f"likelihood: expected a positive standard deviation, got {likelihood!r}")
        return NormalLikelihood(float(likelihood))
    if isinstance(likelihood, Likelihood):
        return likelihood
    if callable(likelihood) and not isinstance(likelihood, type):
        return CallableLikelihood(likelihood)
    raise TypeError(
        "likelihood: expected a name, a positive standard deviation, or a function of the decoder's output to a "
        f"distribution, got {likelihood!r}"
    )


def _range(value: torch.Tensor) -> str:
    return f"from {value.min().item():g} to {value.max().item():g}"
