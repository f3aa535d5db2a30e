"""The energy of the residual of any network."""

from collections.abc import Callable

import torch
from torch.distributions import constraints

from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.networks import NetworkAutoencoder
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.steps import sum_event
from pyro_ebm.sampling.types import ArrayLike

_Network = Callable[[torch.Tensor], torch.Tensor]


class GradientStepEnergy(NetworkAutoencoder):
    r"""An energy from the residual of any network (Salimans & Ho 2021; Hurault, Leclaire & Papadakis 2022).

    .. math::

        F(x) = \frac{1}{2 \sigma^2} |x - f(x)|^2, \qquad r(x) = x - \sigma^2 \nabla F(x)

    Conservative by construction, whatever the network: the default for deep ones. ``reconstruct`` is the gradient step
    ``r``, not ``f``, so that ``field = sigma^2 score``. Whether the density is proper is the caller's business.

    :param reconstruct: f, maps a **batch** of values of shape ``(..., *event_shape)`` to the same shape.
    :param event_shape: shape of one value, a tuple of positive integers.
    :param scale: sigma, a standard deviation, shape ``(...,)``; default 1.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: ``Hamiltonian()`` (default) or ``Langevin()``.

    >>> import torch
    >>> from pyro_ebm import GradientStepEnergy
    >>> energy = GradientStepEnergy(lambda x: torch.tanh(2 * x), (2,), scale=0.5)
    >>> print(energy.energy(torch.tensor([1.0, 0.0])), energy.field(torch.zeros(2)))
    tensor(0.0026) tensor([0., 0.])
    """

    parameter_dims = {"scale": ()}
    arg_constraints = {"scale": constraints.positive}
    scale: torch.Tensor

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
            {"scale": self._on_device("scale", scale)},
            event_shape=event_shape,
            dtype=self.dtype,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        return 0.5 * sum_event((value - self._network(value)) ** 2, self.event_dim) / self.scale**2

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        output, product = self._pullback(value)
        residual = output - value
        return (residual - product(residual)) / self._over_event(self.scale) ** 2

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        return value + self._over_event(self.scale) ** 2 * self._score(value)
