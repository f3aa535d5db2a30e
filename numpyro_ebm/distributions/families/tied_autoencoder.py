"""The tied autoencoder of one layer as an energy."""

from collections.abc import Iterable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.activations import Activation, resolve_activation
from numpyro_ebm.distributions.parts.autoencoder import LinearAutoencoder
from numpyro_ebm.sampling.protocols import Sampler

_MATRIX = constraints.independent(constraints.real, 2)


class TiedAutoencoder(LinearAutoencoder):
    r"""Tied one-layer autoencoder as an energy (Vincent 2011; Kamyshanska & Memisevic 2013, 2015).

    .. math::

        r(x) = W \,\mathrm{diag}(\alpha)\, g(W^\top x + b) + c, \qquad
        F(x) = \frac1T \Big( \tfrac12 |x - c|^2 - \sum_k \alpha_k G(w_k^\top x + b_k) \Big), \quad G' = g

    so that ``field = r(x) - x = T score``. With sigmoid units it is the free energy of :class:`GaussianBernoulliRBM` of
    unit scale. The partition function is exact for sigmoid units (at most 16, ``temperature`` and ``gain`` not given),
    and by quadrature for any activation while ``min(visible, hidden) <= 3``, where that resolves the density.

    :param weights: W, shape ``(..., visible, hidden)``.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: c, shape ``(..., visible)`` or a scalar; default 0.
    :param activation: g by name (see :mod:`numpyro_ebm.distributions.parts.activations`) or an ``Activation``.
    :param temperature: T, shape ``(...,)``; for a denoising autoencoder the noise **variance**; default 1.
    :param gain: alpha, scaled tying, shape ``(..., hidden)`` or a scalar; default 1; not for softmax.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration; default: exact where the partition function is, else ``Hamiltonian()``.
    :raises ImproperDensityError: for linear and half-linear activations unless the spectral norm of
        ``W diag(alpha)^0.5``, times the root of the largest slope, is below one (sufficient; necessary for linear).

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import TiedAutoencoder
    >>> autoencoder = TiedAutoencoder(jnp.array([[1.0], [2.0]]), activation="tanh")
    >>> [round(float(component), 3) for component in autoencoder.field(jnp.array([0.0, 1.0]))]
    [0.964, 0.928]
    >>> print(f"{autoencoder.log_partition:.4f}")
    4.3379
    """

    parameter_dims = {
        "weights": ("visible", "hidden"),
        "hidden_bias": ("hidden",),
        "visible_bias": ("visible",),
        "temperature": (),
        "gain": ("hidden",),
    }
    arg_constraints = {
        "weights": _MATRIX,
        "hidden_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
        "temperature": constraints.positive,
        "gain": constraints.real_vector,
    }
    optional_parameters = {"temperature": 1.0, "gain": 1.0}
    gain: jax.Array

    def __init__(
        self,
        weights: ArrayLike,
        *,
        hidden_bias: ArrayLike = 0.0,
        visible_bias: ArrayLike = 0.0,
        temperature: ArrayLike | None = None,
        gain: ArrayLike | None = None,
        activation: str | Activation = "sigmoid",
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.activation = resolve_activation(activation)
        if self.activation.is_joint and gain is not None:
            raise ValueError("gain: TiedAutoencoder expected None with softmax units, whose field it would twist")
        parameters = {
            "weights": weights,
            "hidden_bias": hidden_bias,
            "visible_bias": visible_bias,
            "temperature": temperature,
            "gain": gain,
        }
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    def _gains(self) -> jax.Array:
        return super()._gains() if "gain" in self.absent else self.gain

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return value @ self.weights + self.hidden_bias

    def _single_weights(self) -> Iterable[Sequence[np.ndarray]]:
        return self._single_models(("weights", "gain"))
