"""The doors between storeys: what a target, an energy, a sampler and a partition estimator offer to their callers.

Nothing outside an object's own module uses more of it than its protocol says, so whatever has these methods takes part:
a user's own sampler runs in ``sample``, :func:`pyro_ebm.infer.run_chain` and contrastive criteria, a user's own
estimator as ``log_partition=``.
"""

from typing import Any, Protocol, runtime_checkable

import torch

from _ppl_ebm.capabilities import Capability
from pyro_ebm.sampling.types import PyTree


class Target(Protocol):
    """A density up to its constant, with the gradient of its logarithm. Positions have shape ``(*batch, *event)``."""

    def unnormalized_log_prob(self, position: torch.Tensor, /) -> torch.Tensor:
        """Log-density up to a constant, shape ``(*batch,)``."""

    def score(self, position: torch.Tensor, /) -> torch.Tensor:
        """Its gradient, of the shape of ``position``."""


class Coordinates(Target, Protocol):
    """A target in coordinates that cover all of R^D, with the way to the values of a distribution and back."""

    def to_value(self, position: torch.Tensor, /) -> torch.Tensor:
        """The value at a position."""

    def from_value(self, value: torch.Tensor, /) -> torch.Tensor:
        """The position of a value."""


class Energy(Target, Protocol):
    """A distribution whose free energy is known: what samplers and estimators see of it."""

    @property
    def batch_shape(self) -> torch.Size: ...

    @property
    def event_shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def is_discrete(self) -> bool: ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this instance can do beside its energy; decided by its parameters' shapes and options."""

    @property
    def unconstrained(self) -> Coordinates:
        """The density where gradient-informed chains move."""

    @property
    def chain(self) -> "MarkovChain":
        """The Markov chain that contrastive criteria and annealing use."""

    def energy(self, value: torch.Tensor, /) -> torch.Tensor:
        """Free energy, shape ``broadcast(..., batch_shape)``."""

    def initial(self, shape: tuple[int, ...], /) -> torch.Tensor:
        """Starting points of chains, shape ``shape + event_shape``, where ``shape`` ends in ``batch_shape``; at inverse
        temperature 0 exact draws.
        """

    def exact_sample(self, shape: tuple[int, ...], /) -> torch.Tensor:
        """Independent draws, where ``"exact_sampler"`` is among the capabilities."""

    def ancestral_sample(self, shape: tuple[int, ...], /) -> torch.Tensor:
        """The same, one coordinate after the other, where ``"ancestral_sampler"`` is among the capabilities."""

    def gibbs_step(self, value: torch.Tensor, /) -> torch.Tensor:
        """A reversible sweep of conditional draws, where ``"gibbs_step"`` is among the capabilities."""

    def check_sweeps(self) -> None:
        """Warn where these sweeps would not move between states, as far as that is known."""

    def at_inverse_temperature(self, inverse_temperature: Any, /) -> "Energy":
        """The family's path from independent units (0) to this energy (1), where ``"annealing"`` is declared."""

    @property
    def base_log_partition(self) -> torch.Tensor:
        """Exact log Z at inverse temperature 0, shape ``batch_shape``, where ``"annealing"`` is declared."""


@runtime_checkable
class Sampler(Protocol):
    """What ``sampler=`` accepts."""

    def check(self, energy: Energy, /) -> None:
        """Raise ``TypeError`` where this sampler cannot draw from ``energy``."""

    def sample(self, energy: Energy, shape: tuple[int, ...], /) -> torch.Tensor:
        """Draws of shape ``shape + event_shape``, where ``shape`` ends in ``batch_shape``."""


@runtime_checkable
class MarkovChain(Sampler, Protocol):
    """A sampler by Markov chains, which ``run_chain`` and contrastive criteria drive transition by transition.

    The *carry* is what a chain takes along, of any kind; the *tuning* what it adapted while warming up, or ``None``.
    :class:`pyro_ebm.sampling.samplers.Chain` implements ``sample`` and ``tune`` for members that have the rest.
    """

    def init(self, energy: Energy, value: torch.Tensor, /) -> PyTree:
        """The carry of chains that start at ``value``."""

    def tune(self, energy: Energy, value: torch.Tensor, num_steps: int, /) -> tuple[torch.Tensor, PyTree]:
        """Run ``num_steps`` transitions of warm-up from ``value``: where they end, and the tuning."""

    def advance(self, energy: Energy, carry: PyTree, num_steps: int, tuning: PyTree, /) -> PyTree:
        """The carry ``num_steps`` transitions later."""

    def value(self, energy: Energy, carry: PyTree, /) -> torch.Tensor:
        """The values where the chains are."""


@runtime_checkable
class PartitionEstimator(Protocol):
    """What ``log_partition=`` accepts beside ``"auto"``, ``None`` and constants."""

    def prepare(self, energy: Energy, /) -> "PartitionEstimator":
        """The estimator as it is kept; or a ``TypeError`` if it does not suit ``energy``."""

    def weighted_samples(self, energy: Energy, /) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Estimate a partition function and draw from the model.

        :param energy: its parameters carry no gradient.
        :return: ``log_partition`` of shape ``batch_shape``, samples of shape ``(M, *batch_shape, *event_shape)`` and
            their normalised weights of shape ``(M, *batch_shape)``.
        """
