"""An autoencoder of binary data as an energy on the unit cube, and the coordinates in which its chains move."""

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.scipy.special import entr, logit
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.activations import Activation, resolve_activation
from numpyro_ebm.distributions.parts.autoencoder import Autoencoder
from numpyro_ebm.sampling.protocols import Coordinates, Sampler
from numpyro_ebm.sampling.types import Key

_MATRIX = constraints.independent(constraints.real, 2)


class BinaryAutoencoder(Autoencoder):
    r"""Tied autoencoder with sigmoid outputs as an energy on the open unit cube.

    .. math::

        r(x) = \mathrm{sigmoid}(W g(W^\top x + b) + c), \qquad
        -F(x) = c^\top x + \sum_k G(u_k) + \sum_i H(x_i), \quad H(p) = -p \log p - (1 - p) \log(1 - p)

    ``r(x) - x`` is not a gradient field. This is the energy whose score, ``logit r(x) - logit x``, vanishes where
    ``r(x) = x`` and makes an angle below 90 degrees with ``r(x) - x`` everywhere else, so that reconstructing goes
    uphill in density. With sigmoid units it bounds the :class:`BernoulliRBM` of the same parameters:
    ``-F(x) <= log Z`` for every x.

    :param weights: W, shape ``(..., visible, hidden)``.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: c, shape ``(..., visible)`` or a scalar; default 0.
    :param activation: g by name or an ``Activation``.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration; default ``Hamiltonian()``, which moves in ``logit x``.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import BinaryAutoencoder
    >>> autoencoder = BinaryAutoencoder(jnp.array([[2.0], [-2.0]]))
    >>> [round(float(component), 3) for component in autoencoder.reconstruct(jnp.array([0.5, 0.5]))]
    [0.731, 0.269]
    """

    parameter_dims = {"weights": ("visible", "hidden"), "hidden_bias": ("hidden",), "visible_bias": ("visible",)}
    arg_constraints = {
        "weights": _MATRIX,
        "hidden_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
    }
    support = constraints.independent(constraints.open_interval(0.0, 1.0), 1)
    weights: jax.Array
    hidden_bias: jax.Array
    visible_bias: jax.Array

    def __init__(
        self,
        weights: ArrayLike,
        *,
        hidden_bias: ArrayLike = 0.0,
        visible_bias: ArrayLike = 0.0,
        activation: str | Activation = "sigmoid",
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.activation = resolve_activation(activation)
        parameters = {"weights": weights, "hidden_bias": hidden_bias, "visible_bias": visible_bias}
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return value @ self.weights + self.hidden_bias

    def _output_input(self, value: jax.Array) -> jax.Array:
        return self.weights @ self._encode(value) + self.visible_bias

    def _reconstruct(self, value: jax.Array) -> jax.Array:
        return sigmoid(self._output_input(value))

    def output_input(self, value: ArrayLike) -> jax.Array:
        """``logit r(x)``, the input of the output units, shape of ``value``.

        :param value: shape ``(..., *event_shape)``.
        """
        return self._map(type(self)._output_input, self.check_value(value))

    def _energy(self, value: jax.Array) -> jax.Array:
        entropy = entr(value).sum() + entr(1 - value).sum()
        return -(self.visible_bias @ value) - self.activation.potential(self._hidden_input(value)) - entropy

    def _score(self, value: jax.Array) -> jax.Array:
        return self._output_input(value) - logit(value)

    def _laplacian(self, value: jax.Array) -> jax.Array:
        slopes = self.activation.derivative(self._hidden_input(value))
        if self.activation.is_joint:
            trace = ((self.weights @ slopes) * self.weights).sum()
        else:
            trace = slopes @ (self.weights**2).sum(0)
        return trace - (1 / (value * (1 - value))).sum()

    def initial(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        return sigmoid(super().initial(rng_key, shape))

    @property
    def unconstrained(self) -> Coordinates:
        return LogitSpace(self)


class LogitSpace:
    """The density of ``logit x``, whose Jacobian is ``x (1 - x)`` for each coordinate."""

    def __init__(self, distribution: BinaryAutoencoder) -> None:
        self.distribution = distribution

    def to_value(self, position: jax.Array) -> jax.Array:
        rounding = jnp.finfo(position.dtype).epsneg
        return jnp.clip(sigmoid(position), rounding, 1 - rounding)

    def from_value(self, value: jax.Array) -> jax.Array:
        return logit(value)

    def unnormalized_log_prob(self, position: jax.Array) -> jax.Array:
        value = self.to_value(position)
        log_jacobian = -jax.nn.softplus(position) - jax.nn.softplus(-position)
        return self.distribution.unnormalized_log_prob(value) + log_jacobian.sum(-1)

    def score(self, position: jax.Array) -> jax.Array:
        value = self.to_value(position)
        # the output's input less the position, not the logit of the value, which rounding holds back far out
        outward = self.distribution.output_input(value) - position
        return outward * value * (1 - value) + 1 - 2 * value
