"""Masks of energy distributions: of whole values, never of their elements."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpyro.distributions import MaskedDistribution

from _ppl_ebm.shapes import check_masked


class MaskedEnergy(MaskedDistribution):
    """A masked energy distribution; its ``log_prob`` refuses a mask that would count one value several times."""

    pytree_aux_fields = ("own_batch_shape",)
    #: The batch shape before the mask enlarged it.
    own_batch_shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, distribution: Any, mask: bool | jax.Array) -> "MaskedEnergy":
        """``distribution`` under ``mask``."""
        masked = cls(distribution, mask)
        masked.own_batch_shape = tuple(distribution.batch_shape)
        return masked

    def check_mask(self, value: ArrayLike) -> None:
        """Refuse a mask that has more elements than there are values.

        :raises ValueError: if it has.
        """
        lead, base = jnp.shape(value)[: jnp.ndim(value) - self.event_dim], self.base_dist
        check_masked(type(base).__name__, base.batch_shape, lead, self.own_batch_shape)

    def log_prob(self, value: ArrayLike, intermediates: Any = None) -> jax.Array:
        """As the host's.

        :raises ValueError: where the mask has more elements than there are values.
        """
        self.check_mask(value)
        return super().log_prob(value, intermediates)
