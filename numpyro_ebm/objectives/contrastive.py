"""Contrastive divergence and its persistent variant.

Both are differences of free energies whose negative samples are constants: the gradient never flows through the Markov
chain, and the value of the difference estimates no likelihood.
"""

import functools
import math
from collections.abc import MutableMapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from numpyro.util import not_jax_tracer

from _ppl_ebm.checks import check_not_empty, check_positive_int
from _ppl_ebm.drift import MAX_ERRORS, check_finite, warn_of_drift
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.objectives.criterion import Criterion
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.samplers import run_from
from numpyro_ebm.sampling.types import Key


class ContrastiveDivergence(Criterion):
    """CD-k: :math:`F(v) - F(v')` per datum, with ``v'`` the end of a chain that starts at ``v`` (Hinton 2002).

    :param base: an energy distribution; the chain is its ``chain`` (block Gibbs for the RBM family; a Langevin or
        Hamiltonian sampler needs a given ``step_size``).
    :param num_steps: k, transitions of the chain.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :raises ValueError: for a missing key or a ``num_steps`` that is not a positive integer.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import BernoulliRBM
    >>> from numpyro_ebm.objectives import ContrastiveDivergence
    >>> data = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> loss = lambda w: -ContrastiveDivergence(BernoulliRBM(w), rng_key=jax.random.key(0)).log_prob(data).sum()
    >>> jax.grad(loss)(jnp.ones((2, 3))).shape
    (2, 3)
    """

    pytree_data_fields = ("rng_key",)
    pytree_aux_fields = ("num_steps",)

    def __init__(self, base: EnergyDistribution, *, num_steps: int = 1, rng_key: Key | None = None) -> None:
        check_positive_int("num_steps", num_steps)
        super().__init__(base)
        base.chain.check(base)
        self.num_steps = num_steps
        self.rng_key = require_key("ContrastiveDivergence", rng_key)

    def loss(self, value: ArrayLike) -> jax.Array:
        value = self.base.check_value(value)
        start = jnp.broadcast_to(value, jnp.broadcast_shapes(value.shape, self.base.batch_shape + self.event_shape))
        negative = negative_samples(self.rng_key, self.base, start, self.num_steps)
        return self.base.energy(value) - self.base.energy(negative)


class ChainReport(NamedTuple):
    """How persistent chains stand to the data, one number for each model of a batch.

    :param energy_gap: mean energy of the data less that of the chains: near zero when a model has learned.
    :param z_score: the same in standard errors.
    :param spread: standard deviation of the chains' energies.
    :param drift: nats a unit by which the mean energies differ beyond 4.5 standard errors, or the ``spread``,
        whichever is more; of chains in equilibrium below 10.
    :param moved: share of the chains that the last advance moved.
    :param is_finite: whether all energies are finite; where it can be looked at, :meth:`monitor` raises instead.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import BernoulliRBM
    >>> from numpyro_ebm.objectives import PersistentContrastiveDivergence
    >>> rbm = BernoulliRBM(jnp.zeros((2, 3)))
    >>> criterion = PersistentContrastiveDivergence(rbm, jnp.zeros((10, 2)), rng_key=jax.random.key(0))
    >>> report = criterion.monitor(jnp.ones((5, 2)))
    >>> bool(report.drift < 10), bool(report.is_finite)
    (True, True)
    """

    energy_gap: jax.Array
    z_score: jax.Array
    spread: jax.Array
    drift: jax.Array
    moved: jax.Array
    is_finite: jax.Array


class PersistentContrastiveDivergence(Criterion):
    """PCD-k: :math:`F(v)` minus the mean free energy of chains that live on between updates (Tieleman 2008).

    Making the criterion advances the chains by ``num_steps`` transitions under the current parameters. In a NumPyro
    model, keep them in a mutable site, which SVI carries from update to update::

        chains = numpyro.primitives.mutable("chains", {"value": jnp.zeros((100, 784))})
        numpyro.sample("v", PersistentContrastiveDivergence(rbm, chains), obs=batch)

    Chains that do not follow the model give a wrong gradient in silence: look at :meth:`monitor` now and then.

    :param base: an energy distribution; the chain is its ``chain``.
    :param chains: positions of shape ``(num_chains, *batch_shape, *event_shape)``, or a mutable mapping that holds them
        under ``"value"`` and is updated in place.
    :param num_steps: k, transitions per update.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :raises ValueError: for chains of the wrong shape, a missing key, or a ``num_steps`` that is not a positive integer.
    :raises ValueError: for chains that a transition takes to NaN or infinity, and by ``log_prob`` and ``gradient`` for
        chains of such energies; NaN where they are traced.
    :raises TypeError: for chains that are neither an array nor such a mapping.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import BernoulliRBM
    >>> from numpyro_ebm.objectives import PersistentContrastiveDivergence
    >>> chains = {"value": jnp.zeros((10, 2))}
    >>> rbm = BernoulliRBM(jnp.ones((2, 3)))
    >>> criterion = PersistentContrastiveDivergence(rbm, chains, rng_key=jax.random.key(0))
    >>> bool((chains["value"] == criterion.negative).all())
    True
    """

    pytree_data_fields = ("negative", "_moved")

    def __init__(
        self,
        base: EnergyDistribution,
        chains: ArrayLike | MutableMapping[str, Any],
        *,
        num_steps: int = 1,
        rng_key: Key | None = None,
    ) -> None:
        check_positive_int("num_steps", num_steps)
        super().__init__(base)
        base.chain.check(base)
        rng_key = require_key("PersistentContrastiveDivergence", rng_key)
        start = _check_chains(base, chains)
        self.negative = negative_samples(rng_key, base, start, num_steps)
        self._moved = _share_moved(start, self.negative, self.event_dim)
        if not_jax_tracer(self.negative):
            check_finite("chains", "values after their transitions", _finite(self.negative))
        if isinstance(chains, MutableMapping):
            chains["value"] = self.negative

    def loss(self, value: ArrayLike) -> jax.Array:
        negative = self.base.energy(self.negative)
        if not_jax_tracer(negative):
            check_finite("chains", "energies", _finite(negative))
        positive, mean = self.base.energy(value), negative.mean(0)
        mean = mean * jnp.where(jnp.isfinite(mean), 1.0, jnp.nan)  # a factor, so that derivatives are NaN as well
        return positive - jnp.broadcast_to(mean, positive.shape)

    def _gradient(self, value: ArrayLike) -> dict[str, jax.Array]:
        found = super()._gradient(value)
        if all(map(not_jax_tracer, found.values())) and not all(_finite(array).all() for array in found.values()):
            check_finite("chains", "energies", _finite(self.base.energy(self.negative)))
        return found

    def monitor(self, value: ArrayLike, previous: ChainReport | None = None) -> ChainReport:
        """How the chains stand to data. It costs their energies; look every hundred updates or so.

        Chains that the parameters have left behind give a gradient that drives them on. ``drift`` measures it: beyond
        10 nats a unit this warns where it grows (by a quarter, for chains of lower energy than the data, which are far
        from any model that has not learned yet). Without ``previous`` only chains of higher energy are told of.

        :param value: data, shape ``(..., *event_shape)``: a batch, or all.
        :param previous: the report before, of the same run.
        :return: a :class:`ChainReport` of arrays of shape ``batch_shape``. It warns of drift, and checks finiteness,
            where arrays are not traced by ``jit``.
        :raises ValueError: for an empty ``value``, and for energies that are NaN or infinite.
        """
        check_not_empty("value", "monitor", self.base.check_value(value).shape)
        report = self._report(*(lax.stop_gradient(self.base.energy(these)) for these in (value, self.negative)))
        if not_jax_tracer(report.drift):
            check_finite("chains", "energies of data and chains", _finite(report.energy_gap + report.spread))
            earlier = None if previous is None else np.asarray(previous.drift)
            warn_of_drift(np.asarray(report.drift), earlier, np.asarray(report.energy_gap), stacklevel=3)
        return report

    def _report(self, positive: jax.Array, negative: jax.Array) -> ChainReport:
        """Of the energies of data and chains."""
        sides = [energies.reshape(-1, *self.base.batch_shape) for energies in (positive, negative)]
        gap = sides[0].mean(0) - sides[1].mean(0)
        error = jnp.sqrt(jnp.stack([side.var(0) / max(1, len(side) - 1) for side in sides]).sum(0))
        spread = sides[1].std(0)
        drift = jnp.maximum(jnp.abs(gap) - MAX_ERRORS * error, spread) / math.prod(self.event_shape)
        is_finite = jnp.stack([jnp.isfinite(side).all(0) for side in sides]).all(0)
        return ChainReport(gap, jnp.where(gap == 0, 0.0, gap / error), spread, drift, self._moved, is_finite)


def negative_samples(rng_key: Key, base: EnergyDistribution, start: jax.Array, num_steps: int) -> jax.Array:
    """Ends of the base's Markov chains from ``start``, detached."""
    return _run(rng_key, lax.stop_gradient(base), lax.stop_gradient(start), num_steps)


@functools.partial(jax.jit, static_argnums=(3,))
def _run(rng_key: Key, base: EnergyDistribution, start: jax.Array, num_steps: int) -> jax.Array:
    return lax.stop_gradient(run_from(rng_key, base.chain, base, start, num_steps))


def _share_moved(before: jax.Array, after: jax.Array, event_dim: int) -> jax.Array:
    """Share of the chains that are elsewhere now, shape ``batch_shape``."""
    has_moved = (before != after).any(tuple(range(after.ndim - event_dim, after.ndim)))
    return has_moved.astype(after.dtype).mean(0)


def _finite(array: jax.Array) -> np.ndarray:
    return np.isfinite(np.asarray(array))


def _check_chains(base: EnergyDistribution, chains: ArrayLike | MutableMapping[str, Any]) -> jax.Array:
    if isinstance(chains, MutableMapping):
        if "value" not in chains:
            raise ValueError(f'chains: expected a mapping with the key "value", got keys {sorted(chains)}')
        return _check_positions(base, chains["value"])
    if not isinstance(chains, (jax.Array, np.ndarray)):
        raise TypeError(f'chains: expected an array or a mapping with the key "value", got {type(chains).__name__}')
    return _check_positions(base, chains)


def _check_positions(base: EnergyDistribution, positions: ArrayLike) -> jax.Array:
    value = base.check_value(positions, "chains")
    expected = base.batch_shape + base.event_shape
    if value.ndim != len(expected) + 1 or value.shape[1:] != expected:
        raise ValueError(f"chains: expected shape (num_chains, {', '.join(map(str, expected))}), got {value.shape}")
    return value
