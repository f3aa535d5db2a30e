"""Approximate sampling for models that only have a denoiser: walk-jump, and plug-and-play Langevin. Both are biased.

A denoiser ``r`` trained on data with Gaussian noise of standard deviation ``noise_scale`` estimates the score of the
*smoothed* density: ``score(y) = (r(y) - y) / noise_scale^2`` (Tweedie's formula; Alain & Bengio 2014). Nothing here
corrects for steps of finite size, nor for the difference between a denoiser and the posterior mean. For exact sampling,
give a density: see :class:`pyro_ebm.LineIntegralEnergy` and :class:`pyro_ebm.GradientStepEnergy`.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from tqdm.auto import tqdm

from _ppl_ebm.checks import check_positive
from _ppl_ebm.denoising import WalkJump, check_bounds, check_denoised, check_initial, check_run
from pyro_ebm.sampling.steps import Target
from pyro_ebm.sampling.types import ArrayLike

Denoiser: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
#: Positions, and whatever else the walk takes along.
Carry: TypeAlias = tuple[torch.Tensor, ...]


@torch.no_grad()
def walk_jump(
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
) -> WalkJump[torch.Tensor]:
    """Walk by underdamped Langevin dynamics in the smoothed density, and jump to its denoised points. Approximate.

    Saremi & Hyvarinen (2019), with the integrator of Sachs, Leimkuhler & Danos (2017) without a Metropolis correction.

    :param denoise: r, maps ``(..., *event)`` to the same shape.
    :param noise_scale: standard deviation of the noise that it removes.
    :param initial: starting points, shape ``(chains, *event)``.
    :param num_samples: draws kept per chain.
    :param num_warmup: steps run first and thrown away.
    :param thinning: steps per kept draw.
    :param step_size: a length; default ``noise_scale / 2``.
    :param friction: the momentum decays by ``exp(-friction * step_size / noise_scale)`` in every step.
    :param progress: show a tqdm progress bar.
    :raises ValueError: for sizes that are not positive.

    >>> import pyro, torch
    >>> from pyro_ebm.infer import walk_jump
    >>> pyro.set_rng_seed(0)
    >>> perfect = lambda y: y / (1 + 0.5**2)  # for data from Normal(0, 1) under noise of 0.5
    >>> draws = walk_jump(perfect, 0.5, torch.zeros(100, 1), 200, num_warmup=100)
    >>> bool(abs(draws.noisy.std() - 1.25**0.5) < 0.05)
    True
    """
    check_run(num_samples, num_warmup, thinning, noise_scale=noise_scale, friction=friction)
    step_size = 0.5 * noise_scale if step_size is None else step_size
    check_positive("step_size", step_size)
    position = _initial(initial, denoise)
    decay = math.exp(-friction * step_size / noise_scale)

    def step(position: torch.Tensor, momentum: torch.Tensor) -> Carry:
        position = position + 0.5 * step_size * momentum
        kick = 0.5 * step_size * (denoise(position) - position) / noise_scale**2
        momentum = decay * (momentum + kick) + kick + math.sqrt(1 - decay**2) * torch.randn_like(position)
        return position + 0.5 * step_size * momentum, momentum

    carry = position, torch.randn_like(position)
    noisy = _collect(step, carry, num_samples, num_warmup, thinning, progress)
    return WalkJump(noisy, denoise(noisy))


@torch.no_grad()
def plug_and_play_langevin(
    denoise: Denoiser,
    noise_scale: float,
    log_likelihood: Callable[[torch.Tensor], torch.Tensor],
    initial: ArrayLike,
    num_samples: int,
    *,
    num_warmup: int = 0,
    thinning: int = 1,
    step_size: float,
    bounds: tuple[float, float] | None = None,
    progress: bool = False,
) -> torch.Tensor:
    """Unadjusted Langevin draws of a posterior whose prior is known by a denoiser (Laumont et al. 2022). Approximate.

    ``x + step_size^2 / 2 (grad log_likelihood(x) + (r(x) - x) / noise_scale^2) + step_size n``: the prior is the one
    smoothed by the noise, and the bias of the steps is of order ``step_size^2``.

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
    :raises ValueError: for sizes that are not positive, or bounds that do not increase.

    >>> import pyro, torch
    >>> from pyro_ebm.infer import plug_and_play_langevin
    >>> pyro.set_rng_seed(0)
    >>> perfect = lambda y: y / (1 + 0.1**2)  # for data from Normal(0, 1) under noise of 0.1
    >>> seen = lambda x: -0.5 * ((x - 2.0) ** 2).sum(-1)  # Normal(x, 1) at 2
    >>> draws = plug_and_play_langevin(perfect, 0.1, seen, torch.zeros(100, 1), 200, num_warmup=100, step_size=0.3)
    >>> bool(abs(draws.mean() - 1) < 0.05)
    True
    """
    check_run(num_samples, num_warmup, thinning, noise_scale=noise_scale, step_size=step_size)
    check_bounds(bounds)
    position, likelihood = _initial(initial, denoise), Target(log_likelihood)

    def step(position: torch.Tensor) -> Carry:
        force = likelihood.score(position) + (denoise(position) - position) / noise_scale**2
        position = position + 0.5 * step_size**2 * force + step_size * torch.randn_like(position)
        return (position if bounds is None else position.clamp(*bounds),)

    return _collect(step, (position,), num_samples, num_warmup, thinning, progress)


def _collect(
    step: Callable[..., Carry], carry: Carry, num_samples: int, num_warmup: int, thinning: int, progress: bool
) -> torch.Tensor:
    """Warm up and draw: every ``thinning``-th position."""
    kept = []
    for index in tqdm(range(num_warmup + num_samples * thinning), disable=not progress, desc="sampling", unit="step"):
        carry = step(*carry)
        if index >= num_warmup and (index - num_warmup + 1) % thinning == 0:
            kept.append(carry[0])
    return torch.stack(kept, 1)


def _initial(initial: ArrayLike, denoise: Denoiser) -> torch.Tensor:
    position = torch.as_tensor(initial).detach()
    check_initial(position.shape, position.dtype, position.is_floating_point())
    check_denoised(position.shape, denoise(position).shape)
    return position
