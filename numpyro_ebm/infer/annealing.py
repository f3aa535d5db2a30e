"""Annealed importance sampling: a partition function as an estimate, with the gradient that belongs to it."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from numpyro_ebm.infer.keys import require_key
from numpyro_ebm.infer.samplers import check_positive_int


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["rng_key"], meta_fields=["num_chains", "num_temperatures"]
)
@dataclasses.dataclass(frozen=True)
class AnnealedImportanceSampling:
    """Estimator of log Z along the family's path from independent visible units (Neal 2001; Salakhutdinov 2008).

    Give it as ``log_partition=`` to a distribution: ``log_prob`` is then normalised by the estimate, and differentiable
    everywhere, with ``-E_model[grad F]`` taken over the same weighted samples. ``exp`` of the estimate is unbiased for
    Z, so the estimate itself is a lower bound on log Z in expectation, and ``log_prob`` an upper bound.

    :param num_chains: independent annealed chains.
    :param num_temperatures: inverse temperatures, equally spaced from 0 to 1, one Gibbs sweep at each.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model in which the distribution is made.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import BernoulliRBM
    >>> from numpyro_ebm.infer import AnnealedImportanceSampling
    >>> weights = jnp.array([[1.0, -0.5], [0.3, 2.0]])
    >>> estimated = BernoulliRBM(weights, log_partition=AnnealedImportanceSampling(rng_key=jax.random.key(0)))
    >>> bool(abs(estimated.log_partition - BernoulliRBM(weights).log_partition) < 0.05)
    True
    """

    num_chains: int = 100
    num_temperatures: int = 1000
    rng_key: Any = None

    def seeded(self, distribution: Any) -> "AnnealedImportanceSampling":
        """This configuration with a key, checked against the distribution that will use it."""
        check_positive_int("num_chains", self.num_chains)
        check_positive_int("num_temperatures", self.num_temperatures)
        if not (hasattr(distribution, "annealed") and distribution.has_gibbs_step):
            raise TypeError(
                f"log_partition: AnnealedImportanceSampling needs a family with a path to independent units and Gibbs "
                f"sampling along it, and {type(distribution).__name__} has none"
            )
        return dataclasses.replace(self, rng_key=require_key("AnnealedImportanceSampling", self.rng_key))

    def weighted_samples(self, distribution: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Estimate of log Z, the chains' final samples and their normalised weights."""
        log_weights, samples = _anneal(distribution, self.rng_key, self.num_chains, self.num_temperatures)
        total = logsumexp(log_weights, axis=0)
        weights = jnp.exp(log_weights - total[None])
        return distribution.base_log_partition + total - math.log(self.num_chains), samples, weights


@functools.partial(jax.jit, static_argnums=(2, 3))
def _anneal(
    distribution: Any, rng_key: jax.Array, num_chains: int, num_temperatures: int
) -> tuple[jax.Array, jax.Array]:
    """Log importance weights and final positions of ``num_chains`` annealed chains."""
    key_initial, key_run = jax.random.split(rng_key)
    betas = jnp.linspace(0.0, 1.0, num_temperatures + 1, dtype=distribution.dtype)
    position = distribution._initial(key_initial, (num_chains, *distribution.batch_shape))

    def transition(carry: tuple[jax.Array, jax.Array], inputs: Any) -> tuple[Any, None]:
        log_weights, position = carry
        key, previous, current = inputs
        colder = distribution.annealed(current)
        log_weights = log_weights + distribution.annealed(previous).energy(position) - colder.energy(position)
        return (log_weights, colder.gibbs_step(key, position)), None

    start = (jnp.zeros(position.shape[:-1], distribution.dtype), position)
    inputs = (jax.random.split(key_run, num_temperatures), betas[:-1], betas[1:])
    return lax.scan(transition, start, inputs)[0]
