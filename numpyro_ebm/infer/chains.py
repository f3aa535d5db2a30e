"""Running Markov chains of a distribution's own transitions, outside the host's ``MCMC``."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from tqdm.auto import tqdm

from numpyro_ebm.infer.keys import require_key
from numpyro_ebm.infer.samplers import Exact, check_positive_int, check_sampler

_NUM_CHUNKS = 50


def run_chain(
    distribution: Any,
    rng_key: jax.Array,
    num_samples: int,
    *,
    num_warmup: int = 0,
    thinning: int = 1,
    num_chains: int = 1,
    initial: Any = None,
    sampler: Any = None,
    progress: bool = False,
) -> jax.Array:
    """Draws along the distribution's Markov chain: all batch elements and chains advance in parallel.

    Compiled once per shape and sampler configuration; repeated calls with new parameters do not recompile.

    :param distribution: an energy distribution.
    :param rng_key: a JAX PRNG key.
    :param num_samples: draws kept per chain.
    :param num_warmup: transitions run first and thrown away; the step size of a Langevin or Hamiltonian sampler is
        tuned in them unless it was given.
    :param thinning: transitions per kept draw.
    :param num_chains: independent chains.
    :param initial: starting points, shape ``(num_chains, *batch_shape, *event_shape)``; default: the family's.
    :param sampler: ``Gibbs()``, ``Langevin()`` or ``Hamiltonian()``; default: the distribution's chain.
    :param progress: show a tqdm progress bar.
    :return: shape ``(num_chains, num_samples, *batch_shape, *event_shape)``, as ArviZ expects.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> from numpyro_ebm.infer import run_chain
    >>> rbm = GaussianBernoulliRBM(jnp.array([[1.0], [-1.0]]))
    >>> run_chain(rbm, jax.random.key(0), 10, num_warmup=5, num_chains=3).shape
    (3, 10, 2)
    """
    for name, number in (("num_samples", num_samples), ("thinning", thinning), ("num_chains", num_chains)):
        check_positive_int(name, number)
    if isinstance(num_warmup, bool) or not isinstance(num_warmup, int) or num_warmup < 0:
        raise ValueError(f"num_warmup: expected a non-negative integer, got {num_warmup!r}")
    sampler = distribution.chain if sampler is None else sampler
    if isinstance(sampler, Exact):
        raise TypeError("sampler: run_chain expected a Markov chain such as Gibbs(), got Exact()")
    check_sampler(distribution, sampler)
    key_initial, key_warmup, key_run = jax.random.split(require_key("run_chain", rng_key), 3)
    shape = (num_chains, *distribution.batch_shape)
    if initial is None:
        position = distribution._initial(key_initial, shape)
    else:
        position = distribution._check_value(initial, "initial")
        if position.shape != shape + distribution.event_shape:
            raise ValueError(f"initial: expected shape {shape + distribution.event_shape}, got {position.shape}")
    tuning = None
    if num_warmup:
        position, tuning = _warm_up(sampler, distribution, key_warmup, position, num_warmup)
    chunk = max(1, num_samples // _NUM_CHUNKS) if progress else num_samples
    kept = []
    with tqdm(total=num_samples, disable=not progress, desc="sampling", unit="draw") as bar:
        for start in range(0, num_samples, chunk):
            size = min(chunk, num_samples - start)
            key_chunk = jax.random.fold_in(key_run, start)
            position, draws = _collect(sampler, distribution, key_chunk, position, tuning, size, thinning)
            kept.append(draws)
            bar.update(size)
    return jnp.moveaxis(jnp.concatenate(kept), 0, 1)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _warm_up(sampler: Any, distribution: Any, rng_key: jax.Array, position: jax.Array, num_steps: int) -> Any:
    return lax.stop_gradient(sampler.tune(distribution, rng_key, position, num_steps))


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def _collect(
    sampler: Any,
    distribution: Any,
    rng_key: jax.Array,
    position: jax.Array,
    tuning: Any,
    num_samples: int,
    thinning: int,
) -> tuple[jax.Array, jax.Array]:
    def draw(position: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        position = sampler.run(distribution, key, position, thinning, tuning)
        return position, position

    return lax.stop_gradient(lax.scan(draw, position, jax.random.split(rng_key, num_samples)))
