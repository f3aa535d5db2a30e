"""Approximate sampling for models that only have a denoiser: walk-jump, and plug-and-play Langevin. Both are biased.

A denoiser ``r`` trained on data with Gaussian noise of standard deviation ``noise_scale`` estimates the score of the
*smoothed* density: ``score(y) = (r(y) - y) / noise_scale^2`` (Tweedie's formula; Alain & Bengio 2014). Nothing here
corrects for steps of finite size, nor for the difference between a denoiser and the posterior mean. For exact sampling,
give a density: see :class:`numpyro_ebm.LineIntegralEnergy` and :class:`numpyro_ebm.GradientStepEnergy`.
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from tqdm.auto import tqdm

from _ppl_ebm.checks import check_positive
from _ppl_ebm.denoising import WalkJump, check_bounds, check_denoised, check_initial, check_run
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.random import normal
from numpyro_ebm.sampling.types import Key

Denoiser: TypeAlias = Callable[[jax.Array], jax.Array]
#: Positions, and whatever else the walk takes along.
Carry: TypeAlias = tuple[jax.Array, ...]

_NUM_PARTS = 20  # of a run that shows its progress


def walk_jump(
    rng_key: Key | None,
    denoise: Denoiser,
    noise_scale: float,
    initial: ArrayLike,
    num_samples: int,
    *,
    num_warmup: int = 0,
    thinning: int = 1,
    step_size: float | None = None,
    friction: float = 1.0,
    progress: bool = False,
) -> WalkJump[jax.Array]:
    """Walk by underdamped Langevin dynamics in the smoothed density, and jump to its denoised points. Approximate.

    Saremi & Hyvarinen (2019), with the integrator of Sachs, Leimkuhler & Danos (2017) without a Metropolis correction.

    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :param denoise: r, maps ``(..., *event)`` to the same shape.
    :param noise_scale: standard deviation of the noise that it removes.
    :param initial: starting points, shape ``(chains, *event)``.
    :param num_samples: draws kept per chain.
    :param num_warmup: steps run first and thrown away.
    :param thinning: steps per kept draw.
    :param step_size: a length; default ``noise_scale / 2``.
    :param friction: the momentum decays by ``exp(-friction * step_size / noise_scale)`` in every step.
    :param progress: show a tqdm progress bar.
    :raises ValueError: for sizes that are not positive, or a missing key.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.infer import walk_jump
    >>> perfect = lambda y: y / (1 + 0.5**2)  # for data from Normal(0, 1) under noise of 0.5
    >>> draws = walk_jump(jax.random.key(0), perfect, 0.5, jnp.zeros((100, 1)), 200, num_warmup=100)
    >>> bool(abs(draws.noisy.std() - 1.25**0.5) < 0.05)
    True
    """
    check_run(num_samples, num_warmup, thinning, noise_scale=noise_scale, friction=friction)
    step_size = 0.5 * noise_scale if step_size is None else step_size
    check_positive("step_size", step_size)
    position = _initial(initial, denoise)
    key_momentum, key_run = jax.random.split(require_key("walk_jump", rng_key))
    scales = jnp.asarray([noise_scale, step_size, friction], position.dtype)
    carry = position, normal(key_momentum, position.shape, position.dtype)
    walk = functools.partial(_walk, denoise, scales)
    noisy = _collect(walk, carry, key_run, num_samples, num_warmup, thinning, progress)
    return WalkJump(noisy, denoise(noisy))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _walk(
    denoise: Denoiser, scales: jax.Array, carry: Carry, keys: jax.Array, thinning: int
) -> tuple[Carry, jax.Array]:
    noise_scale, step_size, friction = scales
    decay = jnp.exp(-friction * step_size / noise_scale)

    def step(carry: Carry, key: jax.Array) -> tuple[Carry, None]:
        position, momentum = carry
        position = position + 0.5 * step_size * momentum
        kick = 0.5 * step_size * (denoise(position) - position) / noise_scale**2
        noise = normal(key, position.shape, position.dtype)
        momentum = decay * (momentum + kick) + kick + jnp.sqrt(1 - decay**2) * noise
        return (position + 0.5 * step_size * momentum, momentum), None

    return _scan(step, carry, keys, thinning)


def plug_and_play_langevin(
    rng_key: Key | None,
    denoise: Denoiser,
    noise_scale: float,
    log_likelihood: Callable[[jax.Array], jax.Array],
    initial: ArrayLike,
    num_samples: int,
    *,
    num_warmup: int = 0,
    thinning: int = 1,
    step_size: float,
    bounds: tuple[float, float] | None = None,
    progress: bool = False,
) -> jax.Array:
    """Unadjusted Langevin draws of a posterior whose prior is known by a denoiser (Laumont et al. 2022). Approximate.

    ``x + step_size^2 / 2 (grad log_likelihood(x) + (r(x) - x) / noise_scale^2) + step_size n``: the prior is the one
    smoothed by the noise, and the bias of the steps is of order ``step_size^2``.

    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :param denoise: r, maps ``(..., *event)`` to the same shape.
    :param noise_scale: standard deviation of the noise that it removes.
    :param log_likelihood: maps ``(chains, *event)`` to ``(chains,)``, up to constants.
    :param initial: starting points, shape ``(chains, *event)``.
    :param num_samples: draws kept per chain.
    :param num_warmup: steps run first and thrown away.
    :param thinning: steps per kept draw.
    :param step_size: a length; must be below ``2 / sqrt(largest curvature)`` to be stable.
    :param bounds: lowest and highest value, to which every step is clipped; default: none.
    :param progress: show a tqdm progress bar.
    :return: shape ``(chains, draws, *event)``.
    :raises ValueError: for sizes that are not positive, bounds that do not increase, or a missing key.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.infer import plug_and_play_langevin
    >>> perfect = lambda y: y / (1 + 0.1**2)  # for data from Normal(0, 1) under noise of 0.1
    >>> seen = lambda x: -0.5 * ((x - 2.0) ** 2).sum(-1)  # Normal(x, 1) at 2
    >>> key, start = jax.random.key(0), jnp.zeros((100, 1))
    >>> draws = plug_and_play_langevin(key, perfect, 0.1, seen, start, 200, num_warmup=100, step_size=0.3)
    >>> bool(abs(draws.mean() - 1) < 0.05)
    True
    """
    check_run(num_samples, num_warmup, thinning, noise_scale=noise_scale, step_size=step_size)
    check_bounds(bounds)
    position = _initial(initial, denoise)
    limits = (-jnp.inf, jnp.inf) if bounds is None else bounds
    scales = jnp.asarray([noise_scale, step_size, *limits], position.dtype)
    move = functools.partial(_move, denoise, log_likelihood, scales)
    key = require_key("plug_and_play_langevin", rng_key)
    return _collect(move, (position,), key, num_samples, num_warmup, thinning, progress)


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def _move(
    denoise: Denoiser,
    log_likelihood: Callable[[jax.Array], jax.Array],
    scales: jax.Array,
    carry: Carry,
    keys: jax.Array,
    thinning: int,
) -> tuple[Carry, jax.Array]:
    noise_scale, step_size, low, high = scales
    likelihood_score = jax.grad(lambda x: log_likelihood(x).sum())

    def step(carry: Carry, key: jax.Array) -> tuple[Carry, None]:
        (position,) = carry
        force = likelihood_score(position) + (denoise(position) - position) / noise_scale**2
        noise = normal(key, position.shape, position.dtype)
        return (jnp.clip(position + 0.5 * step_size**2 * force + step_size * noise, low, high),), None

    return _scan(step, carry, keys, thinning)


def _scan(
    step: Callable[[Carry, jax.Array], tuple[Carry, None]], carry: Carry, keys: jax.Array, thinning: int
) -> tuple[Carry, jax.Array]:
    """Every ``thinning``-th position."""

    def draw(carry: Carry, key: jax.Array) -> tuple[Carry, jax.Array]:
        carry = lax.scan(step, carry, jax.random.split(key, thinning))[0]
        return carry, carry[0]

    return lax.scan(draw, carry, keys)


def _collect(
    advance: Callable[[Carry, jax.Array, int], tuple[Carry, jax.Array]],
    carry: Carry,
    rng_key: jax.Array,
    num_samples: int,
    num_warmup: int,
    thinning: int,
    progress: bool,
) -> jax.Array:
    """Warm up and draw, in parts under a progress bar if there is to be one."""
    key_warmup, key_run = jax.random.split(rng_key)
    if num_warmup:
        carry = advance(carry, jax.random.split(key_warmup, num_warmup), 1)[0]
    keys, kept = jax.random.split(key_run, num_samples), []
    size = max(1, num_samples // _NUM_PARTS) if progress else num_samples
    with tqdm(total=num_samples, disable=not progress, desc="sampling", unit="draw") as bar:
        for start in range(0, num_samples, size):
            carry, draws = advance(carry, keys[start : start + size], thinning)
            kept.append(jax.block_until_ready(draws))
            bar.update(len(draws))
    return jnp.moveaxis(jnp.concatenate(kept), 0, 1)


def _initial(initial: ArrayLike, denoise: Denoiser) -> jax.Array:
    position = jnp.asarray(initial)
    check_initial(position.shape, position.dtype, jnp.issubdtype(position.dtype, jnp.floating))
    check_denoised(position.shape, jax.eval_shape(denoise, position).shape)
    return position
