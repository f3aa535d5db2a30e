"""Distributions whose score comes from a reconstruction of the value."""

import jax
from jax.typing import ArrayLike

from numpyro_ebm.distributions.energy import EnergyDistribution


class Reconstruction(EnergyDistribution):
    """The base of all autoencoders: ``reconstruct`` and ``field``, from a member's ``_reconstruct``."""

    def _reconstruct(self, value: jax.Array) -> jax.Array:
        raise NotImplementedError

    def reconstruct(self, value: ArrayLike) -> jax.Array:
        """The reconstruction r(x), shape of ``value``.

        :param value: shape ``(..., *event_shape)``.
        """
        return self._map(type(self)._reconstruct, self.check_value(value))

    def field(self, value: ArrayLike) -> jax.Array:
        """``reconstruct(value) - value``."""
        value = self.check_value(value)
        return self._map(type(self)._reconstruct, value) - value
