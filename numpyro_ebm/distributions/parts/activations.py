r"""Activation functions with what an energy needs of them: antiderivative, derivative, growth.

An autoencoder :math:`r(x) = W g(W^\top x + b) + c` has the energy :math:`\tfrac12 |x - c|^2 - \sum_k G(u_k)` with
:math:`G' = g`, so each row of the table names ``g``, ``G`` and ``g'``, and how ``g`` grows, which decides whether the
density is proper: that stands in :mod:`_ppl_ebm.activations`. All formulas are elementwise, except those
of softmax, whose antiderivative is one number for the whole vector (the modern Hopfield energy, Ramsauer et al. 2021).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp
from jax.nn import relu, sigmoid, softplus
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

from _ppl_ebm import activations as facts
from _ppl_ebm.activations import Growth
from _ppl_ebm.calls import show_constructor

Function: TypeAlias = Callable[[jax.Array], jax.Array]


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

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import Activation, TiedAutoencoder
    >>> from numpyro_ebm.distributions.parts.activations import ACTIVATIONS
    >>> sorted(ACTIVATIONS)[:3]
    ['arctan', 'elu', 'gelu']
    >>> gaussian = Activation(lambda u: jnp.exp(-(u**2)), lambda u: 0.5 * jnp.sqrt(jnp.pi) * jax.lax.erf(u),
    ...                       lambda u: -2 * u * jnp.exp(-(u**2)), slopes=(0.0, 0.0), bound=1.0)
    >>> print(f"{TiedAutoencoder(jnp.array([[1.0]]), activation=gaussian).log_partition:.4f}")
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

    def potential(self, inputs: jax.Array) -> jax.Array:
        """G of the units' inputs of shape ``(..., K)``, summed to ``(...)``."""
        potential = self.antiderivative(inputs)
        return potential if self.is_joint else potential.sum(-1)

    def slope(self, inputs: jax.Array) -> jax.Array:
        """Derivative of the potential in the inputs, which is g, shape ``(..., K)``."""
        return self.function(inputs)

    def curvature(self, inputs: jax.Array) -> jax.Array:
        """Second derivatives of the potential, shape ``(..., K)``; if the activation is joint ``(..., K, K)``."""
        return self.derivative(inputs)


show_constructor(Activation)


def _tanh_antiderivative(u: jax.Array) -> jax.Array:
    return softplus(2 * u) - u - math.log(2)


def _hard_tanh_antiderivative(u: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(u) < 1, 0.5 * u**2, jnp.abs(u) - 0.5)


def _hard_sigmoid(u: jax.Array) -> jax.Array:
    return jnp.clip(u / 6 + 0.5, 0, 1)


def _hard_sigmoid_antiderivative(u: jax.Array) -> jax.Array:
    return 3 * _hard_sigmoid(u) ** 2 + relu(u - 3)


def _inside(low: float, high: float, height: float, u: jax.Array) -> jax.Array:
    return jnp.where((u > low) & (u < high), height, 0.0).astype(u.dtype)


def _step(u: jax.Array) -> jax.Array:
    return jnp.heaviside(u, jnp.zeros((), u.dtype))


def _softsign(u: jax.Array) -> jax.Array:
    return u / (1 + jnp.abs(u))


def _arctan_antiderivative(u: jax.Array) -> jax.Array:
    return u * jnp.arctan(u) - 0.5 * jnp.log1p(u**2)


def _gelu_antiderivative(u: jax.Array) -> jax.Array:
    return 0.5 * ((u**2 - 1) * norm.cdf(u) + u * norm.pdf(u))


def _leaky(slope: float, u: jax.Array) -> jax.Array:
    return jnp.where(u > 0, u, slope * u)


def _leaky_antiderivative(slope: float, u: jax.Array) -> jax.Array:
    return 0.5 * u * _leaky(slope, u)


def _leaky_derivative(slope: float, u: jax.Array) -> jax.Array:
    return jnp.where(u > 0, 1.0, slope).astype(u.dtype)


def _elu(scale: float, alpha: float, u: jax.Array) -> jax.Array:
    return scale * jnp.where(u > 0, u, alpha * jnp.expm1(jnp.where(u > 0, 0.0, u)))


def _elu_antiderivative(scale: float, alpha: float, u: jax.Array) -> jax.Array:
    negative = jnp.where(u > 0, 0.0, u)
    return scale * jnp.where(u > 0, 0.5 * u**2, alpha * (jnp.expm1(negative) - negative))


def _elu_derivative(scale: float, alpha: float, u: jax.Array) -> jax.Array:
    return scale * jnp.where(u > 0, 1.0, alpha * jnp.exp(jnp.where(u > 0, 0.0, u)))


def _softplus_antiderivative(u: jax.Array) -> jax.Array:
    r""":math:`-\mathrm{Li}_2(-e^u)`, by Landen's identity on the left half-line and inversion on the right."""
    w = softplus(jnp.where(u > 0, -u, u))
    series = jnp.polyval(jnp.asarray(facts.DEBYE[::-1], w.dtype), w**2)
    left = w + 0.25 * w**2 + w**3 * series
    return jnp.where(u > 0, math.pi**2 / 6 + 0.5 * u**2 - left, left)


def _silu(u: jax.Array) -> jax.Array:
    return u * sigmoid(u)


def _silu_antiderivative(u: jax.Array) -> jax.Array:
    return u * softplus(u) - _softplus_antiderivative(u)


def _silu_derivative(u: jax.Array) -> jax.Array:
    return sigmoid(u) * (1 + u * sigmoid(-u))


def _modulus_antiderivative(u: jax.Array) -> jax.Array:
    return 0.5 * u * jnp.abs(u)


def _soft_threshold(threshold: float, u: jax.Array) -> jax.Array:
    return u - jnp.clip(u, -threshold, threshold)


def _soft_threshold_antiderivative(threshold: float, u: jax.Array) -> jax.Array:
    return 0.5 * _soft_threshold(threshold, u) ** 2


def _soft_threshold_derivative(threshold: float, u: jax.Array) -> jax.Array:
    return 1 - _inside(-threshold, threshold, 1.0, u)


def _softmax(u: jax.Array) -> jax.Array:
    return jax.nn.softmax(u, axis=-1)


def _softmax_antiderivative(u: jax.Array) -> jax.Array:
    return logsumexp(u, axis=-1)


def _softmax_derivative(u: jax.Array) -> jax.Array:
    probability = _softmax(u)
    return jnp.diag(probability) - jnp.outer(probability, probability)


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
    function: Callable[..., jax.Array],
    antiderivative: Callable[..., jax.Array],
    derivative: Callable[..., jax.Array],
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
    "tanh": (jnp.tanh, _tanh_antiderivative, lambda u: 1 - jnp.tanh(u) ** 2),
    "hard_tanh": (lambda u: jnp.clip(u, -1, 1), _hard_tanh_antiderivative, functools.partial(_inside, -1.0, 1.0, 1.0)),
    "hard_sigmoid": (_hard_sigmoid, _hard_sigmoid_antiderivative, functools.partial(_inside, -3.0, 3.0, 1 / 6)),
    "step": (_step, relu, jnp.zeros_like),
    "softsign": (_softsign, lambda u: jnp.abs(u) - jnp.log1p(jnp.abs(u)), lambda u: (1 + jnp.abs(u)) ** -2),
    "arctan": (jnp.arctan, _arctan_antiderivative, lambda u: 1 / (1 + u**2)),
    "probit": (norm.cdf, lambda u: u * norm.cdf(u) + norm.pdf(u), norm.pdf),
    "sin": (jnp.sin, lambda u: -jnp.cos(u), jnp.cos),
    "linear": (lambda u: u, lambda u: 0.5 * u**2, jnp.ones_like),
    "relu": (relu, lambda u: 0.5 * relu(u) ** 2, _step),
    "elu": _elu_rows(1.0, 1.0),
    "selu": _elu_rows(*facts.SELU),
    "gelu": (lambda u: u * norm.cdf(u), _gelu_antiderivative, lambda u: norm.cdf(u) + u * norm.pdf(u)),
    "silu": (_silu, _silu_antiderivative, _silu_derivative),
    "softplus": (softplus, _softplus_antiderivative, sigmoid),
    "modulus": (jnp.abs, _modulus_antiderivative, jnp.sign),
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
