"""Distributions whose score comes from a reconstruction of the value."""

import torch

from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling.types import ArrayLike


class Reconstruction(EnergyDistribution):
    """The base of all autoencoders: ``reconstruct`` and ``field``, from a member's ``_reconstruct``."""

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def reconstruct(self, value: ArrayLike) -> torch.Tensor:
        """The reconstruction r(x), shape of ``value``.

        :param value: shape ``(..., *event_shape)``.
        """
        return self._reconstruct(self.check_value(value))

    def field(self, value: ArrayLike) -> torch.Tensor:
        """``reconstruct(value) - value``."""
        value = self.check_value(value)
        return self._reconstruct(value) - value
