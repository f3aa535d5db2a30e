r"""Activation functions with what an energy needs of them: antiderivative, derivative, growth.

An autoencoder :math:`r(x) = W g(W^\top x + b) + c` has the energy :math:`\tfrac12 |x - c|^2 - \sum_k G(u_k)` with
:math:`G' = g`, so each row of the table names ``g``, ``G`` and ``g'``, and how ``g`` grows, which decides whether the
density is proper: that stands in :mod:`_ppl_ebm.activations`. All formulas are elementwise, except those
of softmax over the last axis, whose antiderivative is one number for each vector (the modern Hopfield energy, Ramsauer
et al. 2021).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, SupportsIndex, TypeAlias

import torch
from torch import relu, sigmoid
from torch.special import ndtr

from _ppl_ebm import activations as facts
from _ppl_ebm.activations import Growth
from _ppl_ebm.calls import show_constructor
from pyro_ebm.distributions.batching import softplus

Function: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Activation(Growth):
    """One activation: three functions that calculus ties together, and the growth of the first.

    :param function: g.
    :param antiderivative: G with G' = g.
    :param derivative: g' (almost everywhere).
    :param name: what messages call it.
    :param slopes: limits of g(u) / u for u to minus and plus infinity; ``None``: not known, and then whether densities
        are proper is the caller's business, and no partition function is computed by quadrature.
    :param limits: limits of g itself where its slope is 0 (the mean value, where it oscillates), else 0.
    :param bound: supremum of abs(g(u) - slope u).
    :param kinks: where g or its derivative jumps.
    :param bends: infimum and supremum of g' between the kinks; ``None``: not known, and then the derivative at 20,001
        inputs in (-100, 100) stands for them.
    :param jump: how far g jumps up, at the most, where it is not continuous.
    :param is_continuous: whether g is; score matching needs that.
    :param is_joint: whether g maps the whole vector at once (softmax).

    >>> import math, torch
    >>> from pyro_ebm import Activation, TiedAutoencoder
    >>> from pyro_ebm.distributions.parts.activations import ACTIVATIONS
    >>> sorted(ACTIVATIONS)[:3]
    ['arctan', 'elu', 'gelu']
    >>> gaussian = Activation(lambda u: torch.exp(-(u**2)), lambda u: 0.5 * math.sqrt(math.pi) * torch.erf(u),
    ...                       lambda u: -2 * u * torch.exp(-(u**2)), slopes=(0.0, 0.0), bound=1.0)
    >>> print(f"{TiedAutoencoder(torch.tensor([[1.0]]), activation=gaussian).log_partition:.4f}")
    1.0940
    """

    function: Function
    antiderivative: Function
    derivative: Function

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        # The rows of the table, some of whose functions have no name, are pickled by theirs.
        if ACTIVATIONS.get(self.name) is self:
            return resolve_activation, (self.name,)
        return super().__reduce_ex__(protocol)

    def potential(self, inputs: torch.Tensor) -> torch.Tensor:
        """G of the units' inputs of shape ``(..., K)``, summed to ``(...)``."""
        potential = self.antiderivative(inputs)
        return potential if self.is_joint else potential.sum(-1)

    def slope(self, inputs: torch.Tensor) -> torch.Tensor:
        """Derivative of the potential in the inputs, which is g, shape ``(..., K)``."""
        return self.function(inputs)

    def curvature(self, inputs: torch.Tensor) -> torch.Tensor:
        """Second derivatives of the potential, shape ``(..., K)``; if the activation is joint ``(..., K, K)``."""
        return self.derivative(inputs)


show_constructor(Activation)


def _density(u: torch.Tensor) -> torch.Tensor:
    """That of the standard normal distribution."""
    return torch.exp(-0.5 * u**2) / math.sqrt(2 * math.pi)


def _tanh_antiderivative(u: torch.Tensor) -> torch.Tensor:
    return softplus(2 * u) - u - math.log(2)


def _hard_tanh_antiderivative(u: torch.Tensor) -> torch.Tensor:
    return torch.where(u.abs() < 1, 0.5 * u**2, u.abs() - 0.5)


def _hard_sigmoid(u: torch.Tensor) -> torch.Tensor:
    return (u / 6 + 0.5).clamp(0, 1)


def _hard_sigmoid_antiderivative(u: torch.Tensor) -> torch.Tensor:
    return 3 * _hard_sigmoid(u) ** 2 + relu(u - 3)


def _inside(low: float, high: float, height: float, u: torch.Tensor) -> torch.Tensor:
    return ((u > low) & (u < high)).to(u.dtype) * height


def _step(u: torch.Tensor) -> torch.Tensor:
    return (u > 0).to(u.dtype)


def _softsign(u: torch.Tensor) -> torch.Tensor:
    return u / (1 + u.abs())


def _softsign_antiderivative(u: torch.Tensor) -> torch.Tensor:
    magnitude = torch.where(u > 0, u, -u)  # torch.abs would lose the second derivative at 0
    return magnitude - torch.log1p(magnitude)


def _arctan_antiderivative(u: torch.Tensor) -> torch.Tensor:
    return u * torch.atan(u) - 0.5 * torch.log1p(u**2)


def _gelu_antiderivative(u: torch.Tensor) -> torch.Tensor:
    return 0.5 * ((u**2 - 1) * ndtr(u) + u * _density(u))


def _leaky(slope: float, u: torch.Tensor) -> torch.Tensor:
    return torch.where(u > 0, u, slope * u)


def _leaky_antiderivative(slope: float, u: torch.Tensor) -> torch.Tensor:
    return 0.5 * u * _leaky(slope, u)


def _leaky_derivative(slope: float, u: torch.Tensor) -> torch.Tensor:
    return torch.where(u > 0, torch.ones_like(u), slope)


def _elu(scale: float, alpha: float, u: torch.Tensor) -> torch.Tensor:
    return scale * torch.where(u > 0, u, alpha * torch.expm1(torch.where(u > 0, 0.0, u)))


def _elu_antiderivative(scale: float, alpha: float, u: torch.Tensor) -> torch.Tensor:
    negative = torch.where(u > 0, 0.0, u)
    return scale * torch.where(u > 0, 0.5 * u**2, alpha * (torch.expm1(negative) - negative))


def _elu_derivative(scale: float, alpha: float, u: torch.Tensor) -> torch.Tensor:
    return scale * torch.where(u > 0, 1.0, alpha * torch.exp(torch.where(u > 0, 0.0, u)))


def _softplus_antiderivative(u: torch.Tensor) -> torch.Tensor:
    r""":math:`-\mathrm{Li}_2(-e^u)`, by Landen's identity on the left half-line and inversion on the right."""
    w = softplus(torch.where(u > 0, -u, u))
    square = w**2
    series = functools.reduce(lambda total, c: total * square + c, facts.DEBYE[::-1], torch.zeros_like(u))
    left = w + 0.25 * square + w * square * series
    return torch.where(u > 0, math.pi**2 / 6 + 0.5 * u**2 - left, left)


def _silu(u: torch.Tensor) -> torch.Tensor:
    return u * sigmoid(u)


def _silu_antiderivative(u: torch.Tensor) -> torch.Tensor:
    return u * softplus(u) - _softplus_antiderivative(u)


def _silu_derivative(u: torch.Tensor) -> torch.Tensor:
    return sigmoid(u) * (1 + u * sigmoid(-u))


def _modulus_antiderivative(u: torch.Tensor) -> torch.Tensor:
    return 0.5 * u * u.abs()


def _soft_threshold(threshold: float, u: torch.Tensor) -> torch.Tensor:
    return u - u.clamp(-threshold, threshold)


def _soft_threshold_antiderivative(threshold: float, u: torch.Tensor) -> torch.Tensor:
    return 0.5 * _soft_threshold(threshold, u) ** 2


def _soft_threshold_derivative(threshold: float, u: torch.Tensor) -> torch.Tensor:
    return 1 - _inside(-threshold, threshold, 1.0, u)


def _softmax(u: torch.Tensor) -> torch.Tensor:
    return torch.softmax(u, -1)


def _softmax_antiderivative(u: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(u, -1)


def _softmax_derivative(u: torch.Tensor) -> torch.Tensor:
    probability = _softmax(u)
    return torch.diag_embed(probability) - probability.unsqueeze(-1) * probability.unsqueeze(-2)


@functools.cache
def leaky_relu(negative_slope: float = 0.01) -> Activation:
    """max(u, 0) + negative_slope min(u, 0)."""
    functions = _with_arguments(_leaky, _leaky_antiderivative, _leaky_derivative, negative_slope)
    return Activation(*functions, **vars(facts.leaky_relu(negative_slope)))


@functools.cache
def soft_threshold(threshold: float = 1.0) -> Activation:
    """sign(u) max(abs(u) - threshold, 0).

    :raises ValueError: for a negative threshold.
    """
    functions = _with_arguments(_soft_threshold, _soft_threshold_antiderivative, _soft_threshold_derivative, threshold)
    return Activation(*functions, **vars(facts.soft_threshold(threshold)))


def _with_arguments(
    function: Callable[..., torch.Tensor],
    antiderivative: Callable[..., torch.Tensor],
    derivative: Callable[..., torch.Tensor],
    *arguments: float,
) -> tuple[Function, Function, Function]:
    """The three functions with their leading arguments filled in."""
    fill = functools.partial
    return fill(function, *arguments), fill(antiderivative, *arguments), fill(derivative, *arguments)


def _elu_rows(scale: float, alpha: float) -> tuple[Function, Function, Function]:
    return _with_arguments(_elu, _elu_antiderivative, _elu_derivative, scale, alpha)


#: g, G and g' of every activation.
_FUNCTIONS: dict[str, tuple[Function, Function, Function]] = {
    "sigmoid": (sigmoid, softplus, lambda u: sigmoid(u) * sigmoid(-u)),
    "tanh": (torch.tanh, _tanh_antiderivative, lambda u: 1 - torch.tanh(u) ** 2),
    "hard_tanh": (lambda u: u.clamp(-1, 1), _hard_tanh_antiderivative, functools.partial(_inside, -1.0, 1.0, 1.0)),
    "hard_sigmoid": (_hard_sigmoid, _hard_sigmoid_antiderivative, functools.partial(_inside, -3.0, 3.0, 1 / 6)),
    "step": (_step, relu, torch.zeros_like),
    "softsign": (_softsign, _softsign_antiderivative, lambda u: (1 + u.abs()) ** -2),
    "arctan": (torch.atan, _arctan_antiderivative, lambda u: 1 / (1 + u**2)),
    "probit": (ndtr, lambda u: u * ndtr(u) + _density(u), _density),
    "sin": (torch.sin, lambda u: -torch.cos(u), torch.cos),
    "linear": (lambda u: u, lambda u: 0.5 * u**2, torch.ones_like),
    "relu": (relu, lambda u: 0.5 * relu(u) ** 2, _step),
    "elu": _elu_rows(1.0, 1.0),
    "selu": _elu_rows(*facts.SELU),
    "gelu": (lambda u: u * ndtr(u), _gelu_antiderivative, lambda u: ndtr(u) + u * _density(u)),
    "silu": (_silu, _silu_antiderivative, _silu_derivative),
    "softplus": (softplus, _softplus_antiderivative, sigmoid),
    "modulus": (torch.abs, _modulus_antiderivative, torch.sign),
    "softmax": (_softmax, _softmax_antiderivative, _softmax_derivative),
}
#: Every activation that has a name.
ACTIVATIONS = {
    row.name: row
    for row in (
        *(Activation(*functions, **vars(facts.GROWTH[name])) for name, functions in _FUNCTIONS.items()),
        leaky_relu(),
        soft_threshold(),
    )
}


def resolve_activation(activation: str | Activation) -> Activation:
    """The activation of that name, or the one given.

    :raises ImproperDensityError: for activations whose antiderivative outgrows every Gaussian.
    """
    return activation if isinstance(activation, Activation) else ACTIVATIONS[facts.check_name(activation)]
