"""Energies given by any function or network."""

from collections.abc import Callable
from typing import Any

import torch
from torch.distributions import constraints

from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.infer.samplers import Sampler


class NeuralEnergy(EnergyDistribution):
    r"""A distribution with density proportional to ``exp(-energy_fn(v))`` for any torch function or network.

    The partition function is unknown unless one is given, so ``log_prob`` is guarded: it may be differentiated in the
    value, and differentiating it in the network's parameters, or in anything that ``energy_fn`` closes over, raises.
    To find out what that is, ``log_prob`` calls ``energy_fn`` a second time while gradients are recorded.
    Whether ``exp(-energy_fn)`` can be normalised at all is the caller's business.

    :param energy_fn: maps a **batch** of values of shape ``(..., *event_shape)`` to energies of shape ``(...)`` (in
        NumPyro: one value to a scalar): a plain function or any ``torch.nn.Module``. Samples and energies have the
        type and device of the module's first floating-point parameter or buffer; torch's defaults without one.
        The distribution pickles where ``energy_fn`` does.
    :param event_shape: shape of one value, a tuple of positive integers.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param sampler: ``Hamiltonian()`` (default) or ``Langevin()``.
    :raises TypeError: if ``energy_fn`` is not callable or ``event_shape`` is not a tuple of positive integers.
    :raises ValueError: on first use, if ``energy_fn`` does not return one energy for each value.

    >>> import torch
    >>> from pyro_ebm import NeuralEnergy
    >>> ring = NeuralEnergy(lambda v: 4 * ((v**2).sum(-1) - 1) ** 2, (2,))
    >>> ring.sample((3,)).shape
    torch.Size([3, 2])
    >>> print(ring.score(torch.tensor([1.0, 1.0])))
    tensor([-16., -16.])
    """

    def __init__(
        self,
        energy_fn: Callable[[torch.Tensor], torch.Tensor],
        event_shape: tuple[int, ...],
        *,
        log_partition: Any = "auto",
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not callable(energy_fn):
            raise TypeError(f"energy_fn: expected a callable, got {type(energy_fn).__name__}")
        if not isinstance(event_shape, tuple) or not all(isinstance(size, int) and size > 0 for size in event_shape):
            raise TypeError(f"event_shape: expected a tuple of positive integers, got {event_shape!r}")
        self.energy_fn = energy_fn
        super().__init__(
            event_shape=event_shape, log_partition=log_partition, sampler=sampler, validate_args=validate_args
        )

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def dtype(self) -> torch.dtype:
        return self._reference().dtype

    @property
    def device(self) -> torch.device:
        return self._reference().device

    def _reference(self) -> torch.Tensor:
        """A tensor of the network's type and device."""
        module = getattr(self.energy_fn, "__self__", self.energy_fn)
        tensors = [*module.parameters(), *module.buffers()] if isinstance(module, torch.nn.Module) else []
        return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        energy = self.energy_fn(value)
        expected = value.shape[: value.dim() - self.event_dim]
        shape = getattr(energy, "shape", None)
        if shape != expected:
            got = type(energy).__name__ if shape is None else f"shape {tuple(shape)}"
            raise ValueError(
                f"energy_fn: expected energies of shape {tuple(expected)} for values of shape {tuple(value.shape)}, "
                f"got {got}"
            )
        return energy

    def _guarded(self, value: torch.Tensor) -> list[torch.Tensor]:
        # Only what the energy depends on beside its value can give this a gradient: parameters and captured tensors.
        beside_value = [self._energy(value.detach())] if torch.is_grad_enabled() else []
        return beside_value + super()._guarded(value)
