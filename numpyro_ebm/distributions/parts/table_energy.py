"""Energies that are sums of tables, of which ``+inf`` forbids states, and what is said where none is left."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro.util import not_jax_tracer

from _ppl_ebm.factor_graph import FactorGraph
from _ppl_ebm.limits import NO_STATE
from _ppl_ebm.tables import check_energies, check_possible, find_stuck, warn_of_stuck_moves
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.sampling.types import Key, PyTree


class TableEnergy(EnergyDistribution):
    """A sum of tables of energies; a member sets ``_graph``, and its parameters are the tables in the graph's order."""

    _graph: FactorGraph
    #: Whether sweeps draw all variables at once; ``None`` until the tables have been looked at.
    _draws_at_once: bool | None = None

    @property
    def log_partition(self) -> jax.Array:
        """The log partition function, shape ``batch_shape``.

        :raises IntractablePartitionError: when it is not known.
        :raises ImproperDensityError: where no state is possible; ``-inf`` where traced.
        """
        return self._unless_impossible(super().log_partition, jnp.isneginf)

    def log_prob(self, value: ArrayLike, intermediates: PyTree = None) -> jax.Array:
        """Log-density, ``-inf`` for forbidden states and those out of range.

        :raises ImproperDensityError: where no state is possible; NaN where traced.
        """
        return self._unless_impossible(super().log_prob(value, intermediates), jnp.isnan)

    def sample(self, key: Key | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Independent draws: exact where possible, else the ends of separate Gibbs chains.

        :raises ImproperDensityError: where no state is possible; a state that no variable has where traced.
        :raises ValueError: where chains found no possible state.
        """
        return self._unless_impossible(super().sample(key, sample_shape), lambda draws: draws == NO_STATE)

    def check_sweeps(self) -> None:
        stuck = self._look_at_moves()
        if stuck is not None and not self.has_exact_sampler:
            warn_of_stuck_moves(type(self).__name__, stuck)

    def _look_at_moves(self) -> tuple[int, ...] | None:
        """Variables that sweeps cannot move between states of, if any, where tables are concrete."""
        if not all(map(not_jax_tracer, self._tables)):
            return None
        stuck = find_stuck(self._graph, [np.asarray(table, float) for table in self._tables])
        self._draws_at_once = stuck is not None and self.has_exact_sampler
        return stuck

    @property
    def _tables(self) -> list[jax.Array]:
        return [getattr(self, name) for name in self.parameter_dims]

    def _check_parameter(self, name: str, array: jax.Array) -> None:
        check_energies(type(self).__name__, name, np.asarray(array, float))

    def _check_proper(self) -> None:
        check_possible(type(self).__name__, self._graph, [np.asarray(table, float) for table in self._tables])

    def _unless_impossible(self, result: jax.Array, is_suspect: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """``result``, if it does not come from tables that forbid every state."""
        if not_jax_tracer(result):
            with jax.ensure_compile_time_eval():  # known values stay so in a compiled program
                suspect = bool(is_suspect(result).any())
            if suspect:
                self.check_proper()
        return result
