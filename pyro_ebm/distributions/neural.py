"""Energies given by any function or network."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.distributions import constraints

from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.infer.samplers import Sampler


class CallableEnergy(EnergyDistribution):
    """An energy made of a function or network, whose type and device it takes.

    A member defines ``_evaluate``, the function's output with its shape checked.
    """

    #: The constructor's name for the function.
    callable_name = "energy_fn"

    def _store_callable(self, function: Any, event_shape: Any) -> None:
        if not callable(function):
            raise TypeError(f"{self.callable_name}: expected a callable, got {type(function).__name__}")
        if not isinstance(event_shape, tuple) or not all(isinstance(size, int) and size > 0 for size in event_shape):
            raise TypeError(f"event_shape: expected a tuple of positive integers, got {event_shape!r}")
        self._callable = function

    def _evaluate(self, value: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

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
        return next((tensor for tensor in _tensors(self._callable) if tensor.is_floating_point()), torch.empty(0))

    def _guarded(self, value: torch.Tensor) -> list[torch.Tensor]:
        # Only what the output depends on beside the value can give this a gradient: parameters and captured tensors.
        beside_value = [self._evaluate(value.detach())] if torch.is_grad_enabled() else []
        return beside_value + super()._guarded(value)


class NeuralEnergy(CallableEnergy):
    r"""A distribution with density proportional to ``exp(-energy_fn(v))`` for any torch function or network.

    The partition function is unknown unless one is given, so ``log_prob`` is guarded: it may be differentiated in the
    value, and differentiating it in the network's parameters, or in anything that ``energy_fn`` closes over, raises.
    To find out what that is, ``log_prob`` calls ``energy_fn`` a second time while gradients are recorded.
    Whether ``exp(-energy_fn)`` can be normalised at all is the caller's business.

    :param energy_fn: maps a **batch** of values of shape ``(..., *event_shape)`` to energies of shape ``(...)`` (in
        NumPyro: one value to a scalar): a plain function or any ``torch.nn.Module``. Samples and energies have the
        type and device of the first floating-point parameter or buffer of the module, or of the modules and tensors
        that the function refers to; torch's defaults without one. The distribution pickles where ``energy_fn`` does.
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
        self._store_callable(energy_fn, event_shape)
        super().__init__(
            event_shape=event_shape, log_partition=log_partition, sampler=sampler, validate_args=validate_args
        )

    @property
    def energy_fn(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The function or network."""
        return self._callable

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

    _evaluate = _energy


def captured(function: Any) -> list[Any]:
    """What a function is made of, itself or its owner and what it refers to: modules, distributions, tensors."""
    defaults = getattr(function, "__defaults__", None) or ()
    cells = getattr(function, "__closure__", None) or ()
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    outer = [function.__globals__.get(name) for name in names]
    parts = (getattr(function, "__self__", function), *defaults, *map(_content, cells), *outer)
    kinds = (torch.nn.Module, EnergyDistribution, torch.Tensor)
    return [part for kind in kinds for part in parts if isinstance(part, kind)]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty as yet
        return None


def _tensors(function: Any) -> Iterator[torch.Tensor]:
    for part in captured(function):
        if isinstance(part, torch.nn.Module):
            yield from part.parameters()
            yield from part.buffers()
        else:
            yield part if isinstance(part, torch.Tensor) else torch.empty(0, dtype=part.dtype, device=part.device)
