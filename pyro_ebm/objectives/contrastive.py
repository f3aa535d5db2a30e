"""Contrastive divergence and its persistent variant.

Both are differences of free energies whose negative samples are constants: the gradient never flows through the Markov
chain, and the value of the difference estimates no likelihood.
"""

from collections.abc import MutableMapping
from typing import NamedTuple

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from _ppl_ebm.checks import check_positive_int
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.objectives.criterion import Criterion
from pyro_ebm.sampling.samplers import run_from
from pyro_ebm.sampling.types import ArrayLike


class ContrastiveDivergence(Criterion):
    """CD-k: :math:`F(v) - F(v')` per datum, with ``v'`` the end of a chain that starts at ``v`` (Hinton 2002).

    :param base: an energy distribution; the chain is its ``chain`` (block Gibbs for the RBM family; a Langevin or
        Hamiltonian sampler needs a given ``step_size``).
    :param num_steps: k, transitions of the chain.
    :raises ValueError: for a ``num_steps`` that is not a positive integer.

    >>> import torch
    >>> from pyro_ebm import BernoulliRBM
    >>> from pyro_ebm.objectives import ContrastiveDivergence
    >>> data = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> weights = torch.ones(2, 3, requires_grad=True)
    >>> loss = -ContrastiveDivergence(BernoulliRBM(weights)).log_prob(data).sum()
    >>> torch.autograd.grad(loss, weights)[0].shape
    torch.Size([2, 3])
    """

    def __init__(self, base: EnergyDistribution, *, num_steps: int = 1) -> None:
        check_positive_int("num_steps", num_steps)
        super().__init__(base)
        base.chain.check(base)
        self.num_steps = num_steps

    def loss(self, value: ArrayLike) -> torch.Tensor:
        points = self.base.check_value(value)
        negative = negative_samples(self.base, points, self.num_steps)
        positive, negative = _both_energies(self.base, points, negative)
        return positive - negative

    def gradient(self, value: ArrayLike) -> dict[str, torch.Tensor]:
        if not self._is_single:
            return super().gradient(value)
        points = self.base.check_value(value)
        return contrast(self.base, points, negative_samples(self.base, points, self.num_steps))


class _Advanced(NamedTuple):
    """What chains were last advanced under, and the version of their tensor since then."""

    parameters: list[torch.Tensor]
    num_steps: int
    version: int


_ADVANCED: MutableMapping[torch.Tensor, _Advanced] = WeakTensorKeyDictionary()


def _is_advanced(chains: torch.Tensor, parameters: list[torch.Tensor], num_steps: int) -> bool:
    """Whether chains are where transitions under these parameters have left them."""
    last = None if torch.jit.is_tracing() else _ADVANCED.get(chains)
    if last is None or (last.num_steps, last.version, len(last.parameters)) != (
        num_steps,
        chains._version,
        len(parameters),
    ):
        return False
    return all(
        one.device == other.device and torch.equal(one, other)
        for one, other in zip(last.parameters, parameters, strict=True)
    )


class PersistentContrastiveDivergence(Criterion):
    """PCD-k: :math:`F(v)` minus the mean free energy of chains that live on between updates (Tieleman 2008).

    Making the criterion advances the chains by ``num_steps`` transitions under the current parameters, **in place**,
    once for the same parameters: what evaluates the model again, ``svi.evaluate_loss``, ``Predictive`` or several
    particles, finds them where they are. Keep them in a tensor beside the model, or in a buffer of a ``PyroModule``::

        chains = torch.zeros(100, 784)

        def model(batch):
            ...
            pyro.sample("v", PersistentContrastiveDivergence(rbm, chains), obs=batch)

    :param base: an energy distribution; the chain is its ``chain``.
    :param chains: positions, a floating-point tensor of shape ``(num_chains, *batch_shape, *event_shape)`` that is
        updated in place, so never the data themselves: start from ``data[:100].clone()``.
    :param num_steps: k, transitions per update.
    :raises ValueError: for chains of the wrong shape, on another device, that are a view or require a gradient, or for
        a ``num_steps`` that is not a positive integer.
    :raises TypeError: for chains that are not a floating-point tensor.

    >>> import torch
    >>> from pyro_ebm import BernoulliRBM
    >>> from pyro_ebm.objectives import PersistentContrastiveDivergence
    >>> chains = torch.zeros(10, 2)
    >>> rbm = BernoulliRBM(torch.ones(2, 3))
    >>> criterion = PersistentContrastiveDivergence(rbm, chains)
    >>> bool((chains == criterion.negative).all())
    True
    """

    def __init__(self, base: EnergyDistribution, chains: torch.Tensor, *, num_steps: int = 1) -> None:
        check_positive_int("num_steps", num_steps)
        super().__init__(base)
        base.chain.check(base)
        start = _check_chains(base, chains)
        parameters = [tensor.detach() for tensor in base.parameter_arrays()]
        if _is_advanced(chains, parameters, num_steps):
            self.negative = start.clone()
            return
        self.negative = negative_samples(base, start, num_steps)
        chains.copy_(self.negative)
        kept = [tensor.clone() for tensor in parameters]
        _ADVANCED[chains] = _Advanced(kept, num_steps, chains._version)

    def loss(self, value: ArrayLike) -> torch.Tensor:
        positive, negative = _both_energies(self.base, self.base.check_value(value), self.negative)
        return positive - negative.mean(0)

    def gradient(self, value: ArrayLike) -> dict[str, torch.Tensor]:
        if not self._is_single:
            return super().gradient(value)
        return contrast(self.base, self.base.check_value(value), self.negative)


def _both_energies(
    base: EnergyDistribution, value: torch.Tensor, negative: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies of data and of negative samples, in one pass where shapes allow: small models cost mostly dispatch."""
    own_dims = len(base.batch_shape) + base.event_dim  # which are not to be put one behind the other
    if value.dim() <= own_dims or value.shape[1:] != negative.shape[1:]:
        return base.energy(value), base.energy(negative)
    positive, other = base.energy(torch.cat([value, negative])).split([len(value), len(negative)])
    return positive, other


@torch.no_grad()
def contrast(base: EnergyDistribution, value: torch.Tensor, negative: torch.Tensor) -> dict[str, torch.Tensor]:
    """Difference of the mean energy gradients at data and at negative samples, by the base's own formula."""
    rows = torch.cat([points.reshape(-1, points.shape[-1]) for points in (value, negative)])
    count = value.numel() // value.shape[-1]
    coefficients = rows.new_full((len(rows),), -1 / count, dtype=base.dtype)
    coefficients[count:] = 1 / (len(rows) - count)
    return base.parameter_gradient(rows, coefficients)


@torch.no_grad()
def negative_samples(base: EnergyDistribution, start: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Ends of the base's Markov chains from ``start``, detached."""
    target = base.frozen()
    return run_from(target.chain, target, start.detach(), num_steps)


def _check_chains(base: EnergyDistribution, chains: torch.Tensor) -> torch.Tensor:
    if not isinstance(chains, torch.Tensor) or not chains.is_floating_point():
        got = f"dtype {chains.dtype}" if isinstance(chains, torch.Tensor) else type(chains).__name__
        raise TypeError(f"chains: expected a floating-point tensor, got {got}")
    if chains.requires_grad:
        raise ValueError("chains: expected a tensor that requires no gradient, because it is updated in place, got one")
    if chains.untyped_storage().nbytes() != chains.numel() * chains.element_size():
        raise ValueError("chains: expected a tensor with memory of its own, because it is updated in place, got a view")
    value = base.check_value(chains, "chains")
    expected = base.batch_shape + base.event_shape
    if chains.shape[1:] != expected:
        raise ValueError(
            f"chains: expected shape (num_chains, {', '.join(map(str, expected))}), got {tuple(chains.shape)}"
        )
    return value
