"""The energy of the residual of any network."""

from collections.abc import Callable

import jax
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.networks import NetworkAutoencoder
from numpyro_ebm.sampling.protocols import Sampler

_Network = Callable[[jax.Array], jax.Array]


class GradientStepEnergy(NetworkAutoencoder):
    r"""An energy from the residual of any network (Salimans & Ho 2021; Hurault, Leclaire & Papadakis 2022).

    .. math::

        F(x) = \frac{1}{2 \sigma^2} |x - f(x)|^2, \qquad r(x) = x - \sigma^2 \nabla F(x)

    Conservative by construction, whatever the network: the default for deep ones. ``reconstruct`` is the gradient step
    ``r``, not ``f``, so that ``field = sigma^2 score``. Whether the density is proper is the caller's business.

    :param reconstruct: f, maps a value of shape ``event_shape`` to the same shape.
    :param event_shape: shape of one value, a tuple of positive integers.
    :param scale: sigma, a standard deviation, shape ``(...,)``; default 1.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: ``Hamiltonian()`` (default) or ``Langevin()``.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import GradientStepEnergy
    >>> energy = GradientStepEnergy(lambda x: jnp.tanh(2 * x), (2,), scale=0.5)
    >>> print(energy.energy(jnp.array([1.0, 0.0])).round(4), energy.field(jnp.zeros(2)))
    0.0026 [0. 0.]
    """

    parameter_dims = {"scale": ()}
    arg_constraints = {"scale": constraints.positive}
    scale: jax.Array

    def __init__(
        self,
        reconstruct: _Network,
        event_shape: tuple[int, ...],
        *,
        scale: ArrayLike = 1.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(reconstruct, event_shape)
        super().__init__(
            {"scale": scale},
            event_shape=event_shape,
            dtype=self.dtype,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    def _energy(self, value: jax.Array) -> jax.Array:
        return 0.5 * ((value - self._network(value)) ** 2).sum() / self.scale**2

    def _score(self, value: jax.Array) -> jax.Array:
        output, pull = jax.vjp(self._network, value)
        residual = output - value
        return (residual - pull(residual)[0]) / self.scale**2

    def _reconstruct(self, value: jax.Array) -> jax.Array:
        return value + self.scale**2 * self._score(value)
