"""Energies that are sums of tables, of which ``+inf`` forbids states, and what is said where none is left."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from _ppl_ebm.factor_graph import FactorGraph
from _ppl_ebm.limits import NO_STATE
from _ppl_ebm.tables import check_energies, check_possible, find_stuck, warn_of_stuck_moves
from pyro_ebm.distributions.batching import is_concrete
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling.types import ArrayLike


class TableEnergy(EnergyDistribution):
    """A sum of tables of energies; a member sets ``_graph``, and its parameters are the tables in the graph's order."""

    _graph: FactorGraph
    #: Whether sweeps draw all variables at once; ``None`` until the tables have been looked at.
    _draws_at_once: bool | None = None

    @property
    def log_partition(self) -> torch.Tensor:
        """The log partition function, shape ``batch_shape``.

        :raises IntractablePartitionError: when it is not known.
        :raises ImproperDensityError: where no state is possible; ``-inf`` where traced.
        """
        return self._unless_impossible(super().log_partition, torch.isneginf)

    def log_prob(self, value: ArrayLike) -> torch.Tensor:
        """Log-density, ``-inf`` for forbidden states and those out of range.

        :raises ImproperDensityError: where no state is possible; NaN where traced.
        """
        return self._unless_impossible(super().log_prob(value), torch.isnan)

    def sample(self, sample_shape: Sequence[int] = ()) -> torch.Tensor:
        """Independent draws: exact where possible, else the ends of separate Gibbs chains.

        :raises ImproperDensityError: where no state is possible; a state that no variable has where traced.
        :raises ValueError: where chains found no possible state.
        """
        return self._unless_impossible(super().sample(sample_shape), lambda draws: draws == NO_STATE)

    def check_sweeps(self) -> None:
        stuck = self._look_at_moves()
        if stuck is not None and not self.has_exact_sampler:
            warn_of_stuck_moves(type(self).__name__, stuck)

    def _look_at_moves(self) -> tuple[int, ...] | None:
        """Variables that sweeps cannot move between states of, if any, where tables are concrete."""
        if not all(map(is_concrete, self._tables)):
            return None
        stuck = find_stuck(self._graph, list(map(_as_numpy, self._tables)))
        self._draws_at_once = stuck is not None and self.has_exact_sampler
        return stuck

    @property
    def _tables(self) -> list[torch.Tensor]:
        return [getattr(self, name) for name in self.parameter_dims]

    def _check_parameter(self, name: str, tensor: torch.Tensor) -> None:
        check_energies(type(self).__name__, name, _as_numpy(tensor))

    def _check_proper(self) -> None:
        check_possible(type(self).__name__, self._graph, list(map(_as_numpy, self._tables)))

    def _unless_impossible(
        self, result: torch.Tensor, is_suspect: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """``result``, if it does not come from tables that forbid every state."""
        if is_concrete(result) and bool(is_suspect(result).any()):
            self.check_proper()
        return result


def _as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
