"""The gated restricted Boltzmann machine: a density of an output given an input."""

from typing import Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.gated import GATED_CONSTRAINTS, GATED_DIMS, GatedEnergy
from numpyro_ebm.distributions.parts.gaussian_binary import UnitScaleMachine
from numpyro_ebm.sampling.protocols import Sampler


class GatedRBM(GatedEnergy, UnitScaleMachine):  # type: ignore[misc, override]
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
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
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

    def __init__(
        self,
        input: ArrayLike,
        input_weights: ArrayLike,
        output_weights: ArrayLike,
        mapping_weights: ArrayLike,
        *,
        visible_bias: ArrayLike = 0.0,
        hidden_bias: ArrayLike = 0.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        parameters = {
            "input": input,
            "input_weights": input_weights,
            "output_weights": output_weights,
            "mapping_weights": mapping_weights,
            "visible_bias": visible_bias,
            "hidden_bias": hidden_bias,
        }
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    def at_inverse_temperature(self, inverse_temperature: ArrayLike) -> Self:
        """The family's path from independent visible units (0) to this distribution (1)."""
        beta = jnp.asarray(inverse_temperature, self.dtype)
        scaled = {"mapping_weights": beta * self.mapping_weights, "hidden_bias": beta * self.hidden_bias}
        return self.replace(**scaled, log_partition=None)

    def _visible_input(self, hidden: jax.Array) -> jax.Array:
        return self._output(hidden) + self.visible_bias
