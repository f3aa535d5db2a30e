"""Factored gated machines: energies of an output given an input, whose products drive the hidden units."""

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from numpyro_ebm.distributions.rbm import GaussianBinaryMachine

_MATRIX = constraints.independent(constraints.real, 2)

#: Core dimensions of the parameters that gated machines and gated autoencoders share.
GATED_DIMS = {
    "input": ("input",),
    "input_weights": ("input", "factor"),
    "output_weights": ("visible", "factor"),
    "mapping_weights": ("factor", "hidden"),
    "visible_bias": ("visible",),
    "hidden_bias": ("hidden",),
}
#: Their constraints.
GATED_CONSTRAINTS = {
    "input": constraints.real_vector,
    "input_weights": _MATRIX,
    "output_weights": _MATRIX,
    "mapping_weights": _MATRIX,
    "visible_bias": constraints.real_vector,
    "hidden_bias": constraints.real_vector,
}


class GatedEnergy:
    """Given its input a gated energy is one with the weights ``W_y diag(W_x' x) M``; the factors are cheaper."""

    input: jax.Array
    input_weights: jax.Array
    output_weights: jax.Array
    mapping_weights: jax.Array
    hidden_bias: jax.Array
    _map: Any

    @property
    def weights(self) -> jax.Array:
        """Weights of the energy given the input, shape ``batch + (visible, hidden)``."""
        return self._map(GatedEnergy._gated_weights, using=tuple(GATED_DIMS)[:4])

    def _gates(self) -> jax.Array:
        return self.input @ self.input_weights

    def _gated_weights(self) -> jax.Array:
        return (self.output_weights * self._gates()[None]) @ self.mapping_weights

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return ((value @ self.output_weights) * self._gates()) @ self.mapping_weights + self.hidden_bias

    def _back(self, hidden: jax.Array) -> jax.Array:
        """What the hidden units add to the output."""
        return self.output_weights @ (self._gates() * (self.mapping_weights @ hidden))


class GatedRBM(GatedEnergy, GaussianBinaryMachine):  # type: ignore[misc, override]
    r"""Factored gated conditional restricted Boltzmann machine, p(y | x) (Memisevic & Hinton 2010; Im & Taylor 2015).

    .. math::

        F(y \mid x) = \tfrac12 |y - a|^2
                      - \sum_k \mathrm{softplus}\Big(b_k + \sum_f M_{fk} (W_x^\top x)_f (W_y^\top y)_f\Big)

    A distribution over ``y``: given ``x`` it is a :class:`GaussianBernoulliRBM` of unit scale with the weights
    ``W_y diag(W_x' x) M``, so it is proper for all parameters, and the conditional density (with its own ``log Z(x)``),
    moments and draws are exact while ``hidden <= 16``. A batch of inputs makes a batch of distributions.

    :param input: x, shape ``(..., input)``.
    :param input_weights: W_x, shape ``(..., input, factor)``.
    :param output_weights: W_y, shape ``(..., visible, factor)``.
    :param mapping_weights: M, shape ``(..., factor, hidden)``.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param sampler: sampler configuration; default: exact where possible, else ``Gibbs()``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import GatedRBM
    >>> inputs = jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    >>> gated = GatedRBM(inputs, jnp.eye(2), jnp.eye(2), jnp.ones((2, 1)), hidden_bias=20.0)
    >>> print(gated.mean)
    [[1. 0.]
     [0. 2.]
     [0. 0.]]
    """

    parameter_dims = GATED_DIMS
    arg_constraints = GATED_CONSTRAINTS

    @property
    def scale(self) -> jax.Array:  # type: ignore[override]
        """Standard deviation of the visible units given the hidden ones: ones."""
        return jnp.ones(self.event_shape, self.dtype)

    def annealed(self, inverse_temperature: Any) -> Any:
        """The family's path from independent visible units (0) to this distribution (1)."""
        beta = jnp.asarray(inverse_temperature, self.dtype)
        scaled = {"mapping_weights": beta * self.mapping_weights, "hidden_bias": beta * self.hidden_bias}
        return self._with(**scaled, log_partition=None)

    def _visible_input(self, hidden: jax.Array) -> jax.Array:
        return self._back(hidden) + self.visible_bias
