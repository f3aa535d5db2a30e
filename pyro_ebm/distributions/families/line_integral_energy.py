"""The potential of any autoencoder, integrated along rays."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch.distributions import constraints

from _ppl_ebm.checks import check_positive_int
from pyro_ebm.distributions.batching import as_tensor
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.networks import NetworkAutoencoder, dependence
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.steps import sum_event
from pyro_ebm.sampling.types import ArrayLike

_Network = Callable[[torch.Tensor], torch.Tensor]


class LineIntegralEnergy(NetworkAutoencoder):
    r"""The potential of any autoencoder, integrated along rays (Kamyshanska & Memisevic 2013).

    .. math::

        F(x) = -\frac1T \int_0^1 V(x_0 + t (x - x_0))^\top (x - x_0) \, dt, \qquad V(x) = r(x) - x

    by Gauss-Legendre quadrature. **If and only if V is a gradient field is its potential this energy**, and then
    ``field = T score``. For any other V this is still a density, whose score is not V, and nothing along the rays can
    show the difference: measure :func:`pyro_ebm.diagnostics.asymmetry` and
    :func:`pyro_ebm.diagnostics.circulation` first. A causal network is refused, because a strictly triangular
    Jacobian is never symmetric: see :class:`CausalAutoencoder`. Whether the density is proper is the caller's business.

    :param reconstruct: r, maps a **batch** of values of shape ``(..., *event_shape)`` to the same shape (in NumPyro:
        one value): a plain function or any ``torch.nn.Module``. Its type and device are taken as in
        :class:`NeuralEnergy`.
    :param event_shape: shape of one value, a tuple of positive integers.
    :param origin: x_0, where the energy is zero, shape ``event_shape``; default 0.
    :param num_nodes: quadrature nodes: 8 to 16 for smooth networks, 64 or more for piecewise linear ones.
    :param temperature: T, shape ``(...,)``; for a denoising autoencoder the noise **variance**; default 1.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: ``Hamiltonian()`` (default) or ``Langevin()``.
    :raises ValueError: if the network is causal (see :func:`dependence`; not with ``validate_args=False``), and on
        first use if its output has another shape.

    >>> import torch
    >>> from pyro_ebm import LineIntegralEnergy
    >>> energy = LineIntegralEnergy(lambda x: torch.tanh(2 * x), (2,))
    >>> print(energy.score(torch.tensor([1.0, 0.5])), energy.field(torch.tensor([1.0, 0.5])))
    tensor([-0.0360,  0.2616]) tensor([-0.0360,  0.2616])
    """

    parameter_dims = {"temperature": ()}
    arg_constraints = {"temperature": constraints.positive}
    option_names = ("num_nodes",)
    temperature: torch.Tensor

    def __init__(
        self,
        reconstruct: _Network,
        event_shape: tuple[int, ...],
        *,
        origin: ArrayLike | None = None,
        num_nodes: int = 16,
        temperature: ArrayLike = 1.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(reconstruct, event_shape)
        check_positive_int("num_nodes", num_nodes)
        self.num_nodes = num_nodes
        self.origin = self._check_origin(origin, event_shape)
        super().__init__(
            {"temperature": self._on_device("temperature", temperature)},
            event_shape=event_shape,
            dtype=self.dtype,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )
        if self._validate_args:
            self._refuse_causal()

    def _check_origin(self, origin: ArrayLike | None, event_shape: tuple[int, ...]) -> torch.Tensor:
        if origin is None:
            return torch.zeros(event_shape, dtype=self.dtype, device=self.device)
        tensor = as_tensor("origin", origin, self.device, self.dtype)
        if not tensor.is_floating_point():
            raise TypeError(f"origin: expected a real floating-point tensor, got dtype {tensor.dtype}")
        if tensor.shape != event_shape:
            raise ValueError(f"origin: expected shape {event_shape}, got {tuple(tensor.shape)}")
        return tensor.to(self.dtype)

    def _refuse_causal(self) -> None:
        depends = dependence(self._callable, self.event_shape, self._reference())
        if depends is not None and depends.any() and not (np.tril(depends).any() and np.triu(depends).any()):
            raise ValueError(
                "reconstruct: LineIntegralEnergy expected a network that may have a symmetric Jacobian, got a causal "
                "one (its Jacobian is strictly triangular), whose field has no potential; use CausalAutoencoder"
            )

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "origin": self.origin}

    def parameter_arrays(self) -> list[torch.Tensor]:
        return [*super().parameter_arrays(), self.origin]

    def dependencies(self, value: torch.Tensor) -> list[torch.Tensor]:
        return [*super().dependencies(value), self.origin]

    def frozen(self) -> Self:
        frozen = super().frozen()
        frozen.origin = self.origin.detach()
        return frozen

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        nodes, weights = (torch.as_tensor(part).to(value) for part in np.polynomial.legendre.leggauss(self.num_nodes))
        ray = value - self.origin
        points = value - 0.5 * (1 - nodes).reshape(-1, *[1] * value.dim()) * ray
        along = sum_event((self._network(points) - points) * ray, self.event_dim)
        return -0.5 * torch.tensordot(weights, along, 1) / self.temperature
