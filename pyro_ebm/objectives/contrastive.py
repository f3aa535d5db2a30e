"""Contrastive divergence and its persistent variant.

Both are differences of free energies whose negative samples are constants: the gradient never flows through the Markov
chain, and the value of the difference estimates no likelihood.
"""

import math
from collections.abc import MutableMapping
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from _ppl_ebm.checks import check_not_empty, check_positive_int
from _ppl_ebm.drift import MAX_ERRORS, check_finite, warn_of_drift
from pyro_ebm.distributions.batching import is_concrete
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

    def _gradient(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self._is_single:
            return super()._gradient(value)
        return contrast(self.base, value, negative_samples(self.base, value, self.num_steps))


class _Advanced(NamedTuple):
    """What chains were last advanced under, and the version of their tensor since then."""

    parameters: list[torch.Tensor]
    num_steps: int
    version: int
    moved: torch.Tensor


_ADVANCED: MutableMapping[torch.Tensor, _Advanced] = WeakTensorKeyDictionary()


def _advanced(chains: torch.Tensor, parameters: list[torch.Tensor], num_steps: int) -> _Advanced | None:
    """The last advance of chains, if they are where transitions under these parameters have left them."""
    last = None if torch.jit.is_tracing() else _ADVANCED.get(chains)
    if last is None or (last.num_steps, last.version, len(last.parameters)) != (
        num_steps,
        chains._version,
        len(parameters),
    ):
        return None
    pairs = zip(last.parameters, parameters, strict=True)
    return last if all(one.device == other.device and torch.equal(one, other) for one, other in pairs) else None


class ChainReport(NamedTuple):
    """How persistent chains stand to the data, one number for each model of a batch.

    :param energy_gap: mean energy of the data less that of the chains: near zero when a model has learned.
    :param z_score: the same in standard errors.
    :param spread: standard deviation of the chains' energies.
    :param drift: nats a unit by which the mean energies differ beyond 4.5 standard errors, or the ``spread``,
        whichever is more; of chains in equilibrium below 10.
    :param moved: share of the chains that the last advance moved.
    :param is_finite: whether all energies are finite; where it can be looked at, :meth:`monitor` raises instead.

    >>> import torch
    >>> from pyro_ebm import BernoulliRBM
    >>> from pyro_ebm.objectives import PersistentContrastiveDivergence
    >>> rbm = BernoulliRBM(torch.zeros((2, 3)))
    >>> report = PersistentContrastiveDivergence(rbm, torch.zeros(10, 2)).monitor(torch.ones(5, 2))
    >>> bool(report.drift < 10), bool(report.is_finite)
    (True, True)
    """

    energy_gap: torch.Tensor
    z_score: torch.Tensor
    spread: torch.Tensor
    drift: torch.Tensor
    moved: torch.Tensor
    is_finite: torch.Tensor


class PersistentContrastiveDivergence(Criterion):
    """PCD-k: :math:`F(v)` minus the mean free energy of chains that live on between updates (Tieleman 2008).

    Making the criterion advances the chains by ``num_steps`` transitions under the current parameters, **in place**,
    once for the same parameters: what evaluates the model again, ``svi.evaluate_loss``, ``Predictive`` or several
    particles, finds them where they are. Keep them in a tensor beside the model, or in a buffer of a ``PyroModule``::

        chains = torch.zeros(100, 784)

        def model(batch):
            ...
            pyro.sample("v", PersistentContrastiveDivergence(rbm, chains), obs=batch)

    Chains that do not follow the model give a wrong gradient in silence: look at :meth:`monitor` now and then.

    :param base: an energy distribution; the chain is its ``chain``.
    :param chains: positions, a floating-point tensor of shape ``(num_chains, *batch_shape, *event_shape)`` that is
        updated in place, so never the data themselves: start from ``data[:100].clone()``.
    :param num_steps: k, transitions per update.
    :raises ValueError: for chains of the wrong shape, on another device, that are a view or require a gradient, or for
        a ``num_steps`` that is not a positive integer.
    :raises ValueError: for chains that a transition takes to NaN or infinity, which stay where they were, and by
        ``log_prob`` and ``gradient`` for chains of such energies; NaN where they are traced.
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
        last = _advanced(chains, parameters, num_steps)
        if last is not None:
            self.negative, self._moved = start.clone(), last.moved
            return
        self.negative = negative_samples(base, start, num_steps)
        self._moved = _share_moved(start, self.negative, base.event_dim)
        if is_concrete(self.negative):
            check_finite("chains", "values after their transitions", _finite(self.negative))
        chains.copy_(self.negative)
        kept = [tensor.clone() for tensor in parameters]
        _ADVANCED[chains] = _Advanced(kept, num_steps, chains._version, self._moved)

    def loss(self, value: ArrayLike) -> torch.Tensor:
        positive, negative = _both_energies(self.base, self.base.check_value(value), self.negative)
        mean = negative.mean(0)
        if is_concrete(negative):
            check_finite("chains", "energies", _finite(negative))
        return positive - mean * torch.where(mean.isfinite(), 1.0, math.nan)  # so that derivatives are NaN as well

    def _gradient(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self._is_single:
            return super()._gradient(value)
        found = contrast(self.base, value, self.negative)
        if not all(bool(gradient.isfinite().all()) for gradient in found.values()):
            check_finite("chains", "energies", _finite(self.base.energy(self.negative)))
        return found

    @torch.no_grad()
    def monitor(self, value: ArrayLike, previous: ChainReport | None = None) -> ChainReport:
        """How the chains stand to data. It costs their energies; look every hundred updates or so.

        Chains that the parameters have left behind give a gradient that drives them on. ``drift`` measures it: beyond
        10 nats a unit this warns where it grows (by a quarter, for chains of lower energy than the data, which are far
        from any model that has not learned yet). Without ``previous`` only chains of higher energy are told of.

        :param value: data, shape ``(..., *event_shape)``: a batch, or all.
        :param previous: the report before, of the same run.
        :return: a :class:`ChainReport` of arrays of shape ``batch_shape``. It warns of drift, and checks finiteness,
            where arrays are not traced by ``torch.func``.
        :raises ValueError: for an empty ``value``, and for energies that are NaN or infinite.
        """
        points = self.base.check_value(value)
        check_not_empty("value", "monitor", points.shape)
        report = self._report(*(self.base.energy(these) for these in (points, self.negative)))
        if is_concrete(report.drift):
            check_finite("chains", "energies of data and chains", _finite(report.energy_gap + report.spread))
            earlier = None if previous is None else previous.drift.cpu().numpy()
            warn_of_drift(report.drift.cpu().numpy(), earlier, report.energy_gap.cpu().numpy(), stacklevel=3)
        return report

    def _report(self, positive: torch.Tensor, negative: torch.Tensor) -> ChainReport:
        """Of the energies of data and chains."""
        sides = [energies.reshape(-1, *self.base.batch_shape) for energies in (positive, negative)]
        gap = sides[0].mean(0) - sides[1].mean(0)
        error = torch.stack([side.var(0, correction=0) / max(1, len(side) - 1) for side in sides]).sum(0).sqrt()
        spread = sides[1].std(0, correction=0)
        drift = (gap.abs() - MAX_ERRORS * error).maximum(spread) / math.prod(self.event_shape)
        is_finite = torch.stack([side.isfinite().all(0) for side in sides]).all(0)
        return ChainReport(gap, torch.where(gap == 0, 0.0, gap / error), spread, drift, self._moved, is_finite)


def _share_moved(before: torch.Tensor, after: torch.Tensor, event_dim: int) -> torch.Tensor:
    """Share of the chains that are elsewhere now, shape ``batch_shape``."""
    has_moved = (before != after).flatten(after.dim() - event_dim).any(-1)
    return has_moved.to(after.dtype).mean(0)


def _finite(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().isfinite().cpu().numpy()


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
