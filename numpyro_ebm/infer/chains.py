"""Running Markov chains of a distribution's own transitions, outside the host's ``MCMC``."""

import functools
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from tqdm.auto import tqdm

from _ppl_ebm.checks import are_equal_densities, check_count, check_positive_int, check_reached
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.protocols import MarkovChain
from numpyro_ebm.sampling.samplers import check_chain, has_no_density, starting_points
from numpyro_ebm.sampling.steps import State
from numpyro_ebm.sampling.types import Key, PyTree

_NUM_CHUNKS = 50


class ChainState(NamedTuple):
    """Where chains stand, with all that the next draw depends on; NumPy arrays, so that it can be pickled.

    :param carry: what the sampler carries along: positions of shape ``(chains, *batch_shape, *event_shape)``, or these
        with log-densities and scores.
    :param tuning: what the sampler adapted during warm-up.
    :param key_data: data of the key from which the keys of all draws follow.
    :param num_drawn: draws so far.
    """

    carry: PyTree
    tuning: PyTree
    key_data: np.ndarray
    num_drawn: int


@overload
def run_chain(
    rng_key: Key | None,
    distribution: EnergyDistribution,
    num_samples: int,
    *,
    num_warmup: int = ...,
    thinning: int = ...,
    num_chains: int = ...,
    initial: ArrayLike | None = ...,
    sampler: MarkovChain | None = ...,
    progress: bool = ...,
    devices: Sequence[jax.Device] | None = ...,
    resume: ChainState | None = ...,
    return_state: Literal[False] = ...,
) -> jax.Array: ...


@overload
def run_chain(
    rng_key: Key | None,
    distribution: EnergyDistribution,
    num_samples: int,
    *,
    num_warmup: int = ...,
    thinning: int = ...,
    num_chains: int = ...,
    initial: ArrayLike | None = ...,
    sampler: MarkovChain | None = ...,
    progress: bool = ...,
    devices: Sequence[jax.Device] | None = ...,
    resume: ChainState | None = ...,
    return_state: Literal[True],
) -> tuple[jax.Array, ChainState]: ...


def run_chain(
    rng_key: Key | None,
    distribution: EnergyDistribution,
    num_samples: int,
    *,
    num_warmup: int = 0,
    thinning: int = 1,
    num_chains: int = 1,
    initial: ArrayLike | None = None,
    sampler: MarkovChain | None = None,
    progress: bool = False,
    devices: Sequence[jax.Device] | None = None,
    resume: ChainState | None = None,
    return_state: bool = False,
) -> jax.Array | tuple[jax.Array, ChainState]:
    """Draws along the distribution's Markov chain: all batch elements and chains advance in parallel.

    Compiled once per shape and sampler configuration; repeated calls with new parameters do not recompile. Draws depend
    on the key, and neither on how many are made in one call, nor on the devices. An interrupt (Ctrl-C) of a run that
    shows its progress ends it with a warning and the draws so far.

    :param rng_key: a JAX PRNG key; plays no part in a run that resumes.
    :param distribution: an energy distribution.
    :param num_samples: draws kept per chain.
    :param num_warmup: transitions run first and thrown away; the step size of a Langevin or Hamiltonian sampler is
        tuned in them unless it was given.
    :param thinning: transitions per kept draw.
    :param num_chains: independent chains; of a run that resumes, 1 stands for those that there are.
    :param initial: starting points, shape ``(num_chains, *batch_shape, *event_shape)``; default: the family's.
    :param sampler: ``Gibbs()``, ``Langevin()`` or ``Hamiltonian()``; default: the distribution's chain.
    :param progress: show a tqdm progress bar.
    :param devices: shard the chains over these devices, whose number divides theirs; default: JAX's default device.
    :param resume: continue from the state that an earlier run returned, exactly as if that had gone on, with the same
        sampler; in another distribution from where the chains are.
    :param return_state: also return the :class:`ChainState` at the end.
    :return: shape ``(num_chains, num_samples, *batch_shape, *event_shape)``, as ArviZ expects; with ``return_state`` a
        pair of these draws and the state.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> from numpyro_ebm.infer import run_chain
    >>> rbm = GaussianBernoulliRBM(jnp.array([[1.0], [-1.0]]))
    >>> run_chain(jax.random.key(0), rbm, 10, num_warmup=5, num_chains=3).shape
    (3, 10, 2)
    """
    for name, number in (("num_samples", num_samples), ("thinning", thinning), ("num_chains", num_chains)):
        check_positive_int(name, number)
    check_count("num_warmup", num_warmup)
    if not isinstance(distribution, EnergyDistribution):
        raise TypeError(f"distribution: run_chain expected an energy distribution, got {type(distribution).__name__}")
    sampler = distribution.chain if sampler is None else sampler
    check_chain("run_chain", distribution, sampler)
    if resume is None:
        key_initial, key_warmup, key_run = jax.random.split(require_key("run_chain", rng_key), 3)
        position = _shard(_start(key_initial, distribution, num_chains, initial), devices)
        tuning, num_drawn = None, 0
        if num_warmup:
            position, tuning = _warm_up(key_warmup, sampler, distribution, position, num_warmup)
        carry = sampler.init(distribution, position)
    else:
        _check_resume(distribution, sampler, resume, num_chains, num_warmup, initial)
        key_run, num_drawn = jax.random.wrap_key_data(jnp.asarray(resume.key_data)), resume.num_drawn
        tuning = jax.tree.map(jnp.asarray, resume.tuning)
        carry = _go_on(distribution, sampler, resume.carry)
        carry = jax.tree.map(lambda leaf: _shard(jnp.asarray(leaf), devices), carry)
    chunk = max(1, num_samples // _NUM_CHUNKS) if progress else num_samples
    kept: list[jax.Array] = []
    with tqdm(total=num_samples, disable=not progress, desc="sampling", unit="draw") as bar:
        try:
            for start in range(0, num_samples, chunk):
                size = min(chunk, num_samples - start)
                first = jnp.asarray(num_drawn, jnp.uint32)
                end, draws = _collect(key_run, sampler, distribution, first, carry, tuning, size, thinning)
                kept.append(jax.block_until_ready(draws))
                carry, num_drawn = end, num_drawn + size
                bar.update(size)
        except KeyboardInterrupt:
            if not kept:
                raise
            num_kept = sum(map(len, kept))
            warnings.warn(f"run_chain was interrupted: {num_kept} draws are kept", RuntimeWarning, stacklevel=2)
    draws = jnp.moveaxis(jnp.concatenate(kept), 0, 1)
    if not return_state:
        return draws
    key_data = np.asarray(jax.random.key_data(key_run))
    carry, tuning = jax.tree.map(np.asarray, (carry, tuning))
    return draws, ChainState(carry, tuning, key_data, num_drawn)


def _start(rng_key: Key, distribution: EnergyDistribution, num_chains: int, initial: ArrayLike | None) -> jax.Array:
    shape = (num_chains, *distribution.batch_shape)
    if initial is None:
        position = starting_points(rng_key, distribution, shape)
    else:
        position = distribution.check_value(initial, "initial")
        if position.shape != shape + distribution.event_shape:
            raise ValueError(f"initial: expected shape {shape + distribution.event_shape}, got {position.shape}")
    is_lost = has_no_density(distribution, position)
    check_reached("sampler" if initial is None else "initial", distribution, int(is_lost.sum()), is_lost.size)
    return position


def _check_resume(
    distribution: EnergyDistribution,
    sampler: MarkovChain,
    resume: ChainState,
    num_chains: int,
    num_warmup: int,
    initial: ArrayLike | None,
) -> None:
    if not isinstance(resume, ChainState):
        raise TypeError(f"resume: run_chain expected a ChainState, got {type(resume).__name__}")
    if num_warmup or initial is not None:
        raise ValueError("resume: run_chain expected neither num_warmup nor initial beside it: the state has both")
    shape = (*distribution.batch_shape, *distribution.event_shape)
    try:
        value = sampler.value(distribution, resume.carry)
        found, dtype = value.shape, value.dtype
    except AttributeError as error:
        raise TypeError(f"resume: run_chain expected the state of a {type(sampler).__name__} chain") from error
    if found[1:] != shape:
        raise ValueError(f"resume: expected positions of shape (chains, *{shape}), got {found}")
    if dtype != distribution.dtype:
        raise ValueError(f"resume: expected positions of {distribution.dtype}, got {dtype}")
    if np.shape(resume.key_data) != (expected := jax.random.key_data(jax.random.key(0)).shape):
        raise ValueError(f"resume: expected key_data of shape {expected}, got {np.shape(resume.key_data)}")
    if num_chains not in (1, found[0]):
        raise ValueError(f"num_chains: run_chain expected that of the state to resume, {found[0]}, got {num_chains}")


def _go_on(distribution: EnergyDistribution, sampler: MarkovChain, carry: PyTree) -> PyTree:
    """What the chains carried, with new log-densities and scores if these are of another distribution."""
    if not isinstance(carry, State):
        return carry
    new: State = sampler.init(distribution, sampler.value(distribution, carry))
    for name, one, other in zip(State._fields, carry, new, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise ValueError(
                f"resume: expected {name} of shape {other.shape} and {other.dtype}, got {one.shape} and {one.dtype}"
            )
    return carry if are_equal_densities(np.asarray(carry.log_density), np.asarray(new.log_density)) else new


def _shard(position: jax.Array, devices: Sequence[jax.Device] | None) -> jax.Array:
    """Spread the chains over devices; the compiled loops keep them there."""
    if devices is None:
        return position
    devices = list(devices)
    if not devices or len(position) % len(devices):
        raise ValueError(
            f"devices: run_chain expected a number of devices that divides {len(position)} chains, got {len(devices)}"
        )
    return jax.device_put(position, NamedSharding(Mesh(np.array(devices), ("chains",)), PartitionSpec("chains")))


@functools.partial(jax.jit, static_argnums=(1, 4))
def _warm_up(
    rng_key: Key, sampler: MarkovChain, distribution: EnergyDistribution, position: jax.Array, num_steps: int
) -> tuple[jax.Array, PyTree]:
    return lax.stop_gradient(sampler.tune(rng_key, distribution, position, num_steps))


@functools.partial(jax.jit, static_argnums=(1, 6, 7))
def _collect(
    rng_key: Key,
    sampler: MarkovChain,
    distribution: EnergyDistribution,
    first: jax.Array,
    carry: PyTree,
    tuning: PyTree,
    num_samples: int,
    thinning: int,
) -> tuple[PyTree, jax.Array]:
    def draw(carry: PyTree, count: jax.Array) -> tuple[PyTree, jax.Array]:
        carry = sampler.advance(jax.random.fold_in(rng_key, count), distribution, carry, thinning, tuning)
        return carry, sampler.value(distribution, carry)

    counts = first + jnp.arange(num_samples, dtype=jnp.uint32)
    return lax.stop_gradient(lax.scan(draw, carry, counts))
