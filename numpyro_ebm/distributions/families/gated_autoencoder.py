"""The gated autoencoder of an output given an input as an energy."""

from collections.abc import Iterable, Sequence

import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.activations import Activation, resolve_activation
from numpyro_ebm.distributions.parts.autoencoder import LinearAutoencoder
from numpyro_ebm.distributions.parts.gated import GATED_CONSTRAINTS, GATED_DIMS, GatedEnergy
from numpyro_ebm.sampling.protocols import Sampler


class GatedAutoencoder(GatedEnergy, LinearAutoencoder):  # type: ignore[misc, override]
    r"""Gated autoencoder of an output given an input, as a conditional energy (Memisevic 2011; Im & Taylor 2015).

    .. math::

        u = M^\top \big((W_x^\top x) \odot (W_y^\top y)\big) + b, \qquad
        r(y \mid x) = W_y \big((W_x^\top x) \odot M g(u)\big) + a, \qquad
        F(y \mid x) = \frac1T \Big( \tfrac12 |y - a|^2 - \sum_k G(u_k) \Big), \quad G' = g

    A distribution over ``y``; given ``x`` it is a :class:`TiedAutoencoder` with the weights ``W_y diag(W_x' x) M``, and
    with sigmoid units the free energy of :class:`GatedRBM`. Exact as these are, with a ``log Z(x)`` for each input.

    :param input: x, shape ``(..., input)``.
    :param input_weights: W_x, shape ``(..., input, factor)``.
    :param output_weights: W_y, shape ``(..., visible, factor)``.
    :param mapping_weights: M, shape ``(..., factor, hidden)``.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param temperature: T, shape ``(...,)``; for a denoising autoencoder the noise **variance**; default 1.
    :param activation: g by name or an ``Activation``.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration; default: exact where the partition function is, else ``Hamiltonian()``.
    :raises ImproperDensityError: as :class:`TiedAutoencoder`, for the weights given the input.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import GatedAutoencoder
    >>> gated = GatedAutoencoder(jnp.array([2.0, 1.0]), jnp.eye(2), jnp.eye(2), jnp.ones((2, 1)))
    >>> print(gated.reconstruct(jnp.zeros(2)))
    [1.  0.5]
    """

    parameter_dims = {**GATED_DIMS, "temperature": ()}
    arg_constraints = {**GATED_CONSTRAINTS, "temperature": constraints.positive}
    _weights_name = "mapping_weights"

    def __init__(
        self,
        input: ArrayLike,
        input_weights: ArrayLike,
        output_weights: ArrayLike,
        mapping_weights: ArrayLike,
        *,
        hidden_bias: ArrayLike = 0.0,
        visible_bias: ArrayLike = 0.0,
        temperature: ArrayLike | None = None,
        activation: str | Activation = "sigmoid",
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.activation = resolve_activation(activation)
        parameters = {
            "input": input,
            "input_weights": input_weights,
            "output_weights": output_weights,
            "mapping_weights": mapping_weights,
            "hidden_bias": hidden_bias,
            "visible_bias": visible_bias,
            "temperature": temperature,
        }
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    def _single_weights(self) -> Iterable[Sequence[np.ndarray]]:
        weights = np.asarray(self.weights, float)
        flat = weights.reshape(-1, *weights.shape[-2:])
        return zip(flat, np.ones((len(flat), flat.shape[-1])), strict=True)
