"""Energies given by any function or network."""

from collections.abc import Callable

import torch

from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.networks import CallableEnergy
from pyro_ebm.sampling.protocols import Sampler


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
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
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
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(energy_fn, event_shape)
        super().__init__(
            {},
            event_shape=event_shape,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
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
