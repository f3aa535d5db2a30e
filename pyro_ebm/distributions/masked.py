"""Masks of energy distributions: of whole values, never of their elements."""

from typing import Any

import torch
from pyro.distributions import MaskedDistribution

from _ppl_ebm.shapes import check_masked


class MaskedEnergy(MaskedDistribution):
    """A masked energy distribution; its ``log_prob`` refuses a mask that would count one value several times."""

    #: The batch shape before the mask enlarged it.
    own_batch_shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, distribution: Any, mask: bool | torch.Tensor) -> "MaskedEnergy":
        """``distribution`` under ``mask``."""
        masked = cls(distribution, mask)
        masked.own_batch_shape = tuple(distribution.batch_shape)
        return masked

    def expand(self, batch_shape: Any, _instance: Any = None) -> "MaskedEnergy":
        expanded = super().expand(batch_shape, _instance)
        assert isinstance(expanded, MaskedEnergy)
        expanded.own_batch_shape = self.own_batch_shape
        return expanded

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """As the host's.

        :raises ValueError: where the mask has more elements than there are values.
        """
        lead, base = tuple(value.shape[: value.dim() - self.event_dim]), self.base_dist
        check_masked(type(base).__name__, tuple(base.batch_shape), lead, self.own_batch_shape)
        return super().log_prob(value)
