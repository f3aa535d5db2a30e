"""Contrastive divergence and its persistent variant.

Both are differences of free energies whose negative samples are constants: the gradient never flows through the Markov
chain, and the value of the difference estimates no likelihood.
"""

import functools
from collections.abc import MutableMapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from _ppl_ebm.checks import check_positive_int
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


class PersistentContrastiveDivergence(Criterion):
    """PCD-k: :math:`F(v)` minus the mean free energy of chains that live on between updates (Tieleman 2008).

    Making the criterion advances the chains by ``num_steps`` transitions under the current parameters. In a NumPyro
    model, keep them in a mutable site, which SVI carries from update to update::

        chains = numpyro.primitives.mutable("chains", {"value": jnp.zeros((100, 784))})
        numpyro.sample("v", PersistentContrastiveDivergence(rbm, chains), obs=batch)

    :param base: an energy distribution; the chain is its ``chain``.
    :param chains: positions of shape ``(num_chains, *batch_shape, *event_shape)``, or a mutable mapping that holds them
        under ``"value"`` and is updated in place.
    :param num_steps: k, transitions per update.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :raises ValueError: for chains of the wrong shape, a missing key, or a ``num_steps`` that is not a positive integer.
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

    pytree_data_fields = ("negative",)

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
        if isinstance(chains, MutableMapping):
            chains["value"] = self.negative

    def loss(self, value: ArrayLike) -> jax.Array:
        return self.base.energy(value) - self.base.energy(self.negative).mean(0)


def negative_samples(rng_key: Key, base: EnergyDistribution, start: jax.Array, num_steps: int) -> jax.Array:
    """Ends of the base's Markov chains from ``start``, detached."""
    return _run(rng_key, lax.stop_gradient(base), lax.stop_gradient(start), num_steps)


@functools.partial(jax.jit, static_argnums=(3,))
def _run(rng_key: Key, base: EnergyDistribution, start: jax.Array, num_steps: int) -> jax.Array:
    return lax.stop_gradient(run_from(rng_key, base.chain, base, start, num_steps))


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
