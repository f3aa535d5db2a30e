"""The base of learning criteria: a distribution whose ``log_prob`` is minus the criterion per datum."""

import copy
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints

from _ppl_ebm.calls import show_constructor
from _ppl_ebm.checks import check_not_empty
from _ppl_ebm.shapes import check_broadcast
from numpyro_ebm.distributions.capabilities import WithoutPartition
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.sampling.types import Key, PyTree


class Criterion(WithoutPartition, Distribution):
    """A learning criterion of an energy distribution, to observe data under.

    ``log_prob(value)`` is minus the criterion of each datum, so that its gradient in the parameters of ``base`` is the
    criterion's. It is **not** a log-density, and says nothing about the partition function. ``sample`` is the base's.

    :param base: the energy distribution whose parameters are learned. Its own ``log_partition`` policy plays no part.
    """

    arg_constraints: dict[str, Any] = {}
    pytree_data_fields: tuple[str, ...] = ("base",)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        show_constructor(cls)

    def __init__(self, base: EnergyDistribution) -> None:
        if not isinstance(base, EnergyDistribution):
            raise TypeError(f"base: {type(self).__name__} expected an energy distribution, got {type(base).__name__}")
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=base._validate_args)

    def loss(self, value: ArrayLike) -> jax.Array:
        """The criterion of each datum, shape ``broadcast(..., batch_shape)``.

        :param value: data, shape ``(..., *event_shape)``.
        """
        raise NotImplementedError

    def gradient(self, value: ArrayLike) -> dict[str, jax.Array]:
        """Gradient of the mean criterion over ``value`` in every parameter of ``base``, by name.

        For a training loop of one's own.

        :param value: data, shape ``(..., *event_shape)``.
        :raises TypeError: if ``base`` has no named parameters, as a network energy: differentiate ``log_prob`` there.
        :raises ValueError: for an empty ``value``, which has no mean.
        """
        if not self.base.parameter_dims:
            raise TypeError(
                f"base: gradient expected a distribution with named parameters, got {type(self.base).__name__}; "
                "differentiate log_prob in the network's parameters"
            )
        check_not_empty("value", "gradient", self.base.check_value(value).shape)
        return self._gradient(value)

    def _gradient(self, value: ArrayLike) -> dict[str, jax.Array]:
        """The gradient, of data that have been checked."""

        def mean_loss(parameters: dict[str, jax.Array]) -> jax.Array:
            criterion, base = copy.copy(self), copy.copy(self.base)
            criterion.base = base
            for name, parameter in parameters.items():
                setattr(base, name, parameter)
            return criterion.loss(value).mean()

        gradients = jax.grad(mean_loss)(self.base.parameters())
        return {name: gradients[name] for name in self.base.parameter_dims}

    def log_prob(self, value: ArrayLike, intermediates: PyTree = None) -> jax.Array:
        """Minus the criterion of each datum; only its gradient has a meaning."""
        del intermediates
        loss = self.loss(value)
        check_broadcast("value", loss.shape, self.batch_shape)
        return -jnp.broadcast_to(loss, jnp.broadcast_shapes(loss.shape, self.batch_shape))

    @property
    def support(self) -> constraints.Constraint:
        return self.base.support

    @property
    def has_rsample(self) -> bool:
        return False

    def sample(self, key: Key | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        return self.base.expand(self.batch_shape).sample(key, sample_shape)

    def expand(self, batch_shape: Sequence[int]) -> Self:
        expanded = copy.copy(self)
        expanded._batch_shape = self.base.expand(batch_shape).batch_shape
        return expanded
