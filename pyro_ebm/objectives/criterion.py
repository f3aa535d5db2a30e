"""The base of learning criteria: a distribution whose ``log_prob`` is minus the criterion per datum."""

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from _ppl_ebm.calls import show_constructor
from _ppl_ebm.checks import check_not_empty
from _ppl_ebm.shapes import check_broadcast
from pyro_ebm.distributions.capabilities import WithoutPartition
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling.types import ArrayLike


class Criterion(WithoutPartition, TorchDistribution):
    """A learning criterion of an energy distribution, to observe data under.

    ``log_prob(value)`` is minus the criterion of each datum, so that its gradient in the parameters of ``base`` is the
    criterion's. It is **not** a log-density, and says nothing about the partition function. ``sample`` is the base's.

    :param base: the energy distribution whose parameters are learned. Its own ``log_partition`` policy plays no part.
    """

    arg_constraints: dict[str, Any] = {}  # type: ignore[misc]
    has_rsample = False
    has_enumerate_support = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        show_constructor(cls)

    def __init__(self, base: EnergyDistribution) -> None:
        if not isinstance(base, EnergyDistribution):
            raise TypeError(f"base: {type(self).__name__} expected an energy distribution, got {type(base).__name__}")
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=base._validate_args)

    def loss(self, value: ArrayLike) -> torch.Tensor:
        """The criterion of each datum, shape ``broadcast(..., batch_shape)``.

        :param value: data, shape ``(..., *event_shape)``.
        """
        raise NotImplementedError

    def gradient(self, value: ArrayLike) -> dict[str, torch.Tensor]:
        """Gradient of the mean criterion over ``value`` in every parameter of ``base``, by name.

        For a training loop of one's own; the contrastive criteria of the RBM family compute it in closed form.

        :param value: data, shape ``(..., *event_shape)``.
        :raises TypeError: if ``base`` has no named parameters, as a network energy: differentiate ``log_prob`` there.
        :raises ValueError: for an empty ``value``, which has no mean.
        """
        if not self.base.parameter_dims:
            raise TypeError(
                f"base: gradient expected a distribution with named parameters, got {type(self.base).__name__}; "
                "differentiate log_prob in the network's parameters"
            )
        points = self.base.check_value(value)
        check_not_empty("value", "gradient", points.shape)
        return self._gradient(points)

    def _gradient(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
        """The gradient, of data that have been checked."""
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in self.base.parameters().items()}
        criterion, base = copy.copy(self), copy.copy(self.base)
        criterion.base = base
        for name, leaf in leaves.items():
            setattr(base, name, leaf)
        with torch.enable_grad():
            loss = criterion.loss(value).mean()
            gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True))

    @property
    def _is_single(self) -> bool:
        """Whether the base is one model with named parameters, whose gradients may have a closed form."""
        return bool(self.base.parameter_dims) and not self.base.batch_shape

    def log_prob(self, value: ArrayLike) -> torch.Tensor:
        """Minus the criterion of each datum; only its gradient has a meaning."""
        loss = self.loss(value)
        return -loss.expand(check_broadcast("value", loss.shape, self.batch_shape))

    @property
    def support(self) -> constraints.Constraint:
        return self.base.support  # type: ignore[return-value]

    def sample(self, sample_shape: Sequence[int] = ()) -> torch.Tensor:
        return self.base.expand(self.batch_shape).sample(sample_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        expanded = copy.copy(self)
        expanded._batch_shape = self.base.expand(batch_shape).batch_shape
        return expanded
