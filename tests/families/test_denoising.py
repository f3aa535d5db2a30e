"""Walk-jump and plug-and-play Langevin with the perfect denoiser of a Gaussian, where their bias is known."""

import numpy as np
import pytest

from oracles.statistics import assert_mean

NOISE = 0.5
NUM_CHAINS = 4000


def call(backend, function, *arguments, seed=0, **options):
    """Draws, with a key where the backend wants one."""
    if backend.name == "numpyro":
        import jax

        return getattr(backend.infer, function)(jax.random.key(seed), *arguments, **options)
    import torch

    torch.manual_seed(seed)
    return getattr(backend.infer, function)(*arguments, **options)


def denoiser(y):
    """The posterior mean of data from ``Normal(0, 1)`` given noise of standard deviation NOISE."""
    return y / (1 + NOISE**2)


def test_walk_jump_draws_the_smoothed_density(backend):
    """At a step of a tenth, whose bias cannot be seen; the jump is the denoiser's answer."""
    start = backend.array(np.zeros((NUM_CHAINS, 2)))
    variance = 1 + NOISE**2
    draws = call(backend, "walk_jump", denoiser, NOISE, start, 20, num_warmup=60, thinning=3, step_size=0.1)
    noisy, clean = backend.numpy(draws.noisy), backend.numpy(draws.clean)
    assert noisy.shape == (NUM_CHAINS, 20, 2)
    assert_mean(noisy.mean(1), 0.0)
    assert_mean((noisy**2).mean(1), variance)
    np.testing.assert_allclose(clean, noisy / variance, rtol=1e-12)


def test_plug_and_play_draws_the_posterior(backend):
    """Prior: the smoothed density Normal(0, 1 + NOISE^2); likelihood Normal(x, 1) at 2; ULA's bias in its variance."""
    start = backend.array(np.zeros((NUM_CHAINS, 1)))
    step_size = 0.4
    seen = lambda x: -0.5 * ((x - 2.0) ** 2).sum(-1)
    arguments = (denoiser, NOISE, seen, start, 20)
    draws = call(backend, "plug_and_play_langevin", *arguments, num_warmup=60, thinning=3, step_size=step_size)
    draws = backend.numpy(draws)
    precision = 1 + 1 / (1 + NOISE**2)
    scale = precision**-0.5
    assert_mean(draws.mean(1), 2 / precision)
    expected = scale**2 / (1 - (step_size / (2 * scale)) ** 2)
    assert_mean(((draws - 2 / precision) ** 2).mean(1), expected)


def test_bounds_hold_every_step(backend):
    seen = lambda x: -0.5 * ((x - 2.0) ** 2).sum(-1)
    start = backend.array(np.zeros((10, 1)))
    arguments = (denoiser, NOISE, seen, start, 50)
    draws = backend.numpy(call(backend, "plug_and_play_langevin", *arguments, step_size=0.5, bounds=(-0.1, 0.4)))
    assert draws.min() == -0.1
    assert draws.max() == 0.4


def test_progress_can_be_shown(backend, capsys):
    start = backend.array(np.zeros((3, 1)))
    quiet = call(backend, "walk_jump", denoiser, NOISE, start, 10)
    assert capsys.readouterr().err == ""
    shown = call(backend, "walk_jump", denoiser, NOISE, start, 10, progress=True)
    assert capsys.readouterr().err != ""
    np.testing.assert_allclose(backend.numpy(shown.noisy), backend.numpy(quiet.noisy), rtol=1e-12)


BAD = [
    ({"noise_scale": 0.0}, ValueError, "noise_scale"),
    ({"num_samples": 0}, ValueError, "num_samples"),
    ({"num_warmup": -1}, ValueError, "num_warmup"),
    ({"thinning": 0}, ValueError, "thinning"),
    ({"step_size": -0.1}, ValueError, "step_size"),
    ({"denoise": lambda y: y[..., :1]}, ValueError, "denoise"),
    ({"initial": np.zeros((3, 2), int)}, TypeError, "initial"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(backend, change, error, message):
    options = {"denoise": denoiser, "noise_scale": NOISE, "initial": backend.array(np.zeros((3, 2))), "num_samples": 5}
    options |= change
    arguments = [options.pop(name) for name in ("denoise", "noise_scale", "initial", "num_samples")]
    with pytest.raises(error, match=message):
        call(backend, "walk_jump", *arguments, **options)
    more = {"step_size": 0.1, **options}
    arguments.insert(2, lambda x: -(x**2).sum(-1))
    with pytest.raises(error, match=message):
        call(backend, "plug_and_play_langevin", *arguments, **more)


def test_bounds_must_increase(backend):
    arguments = (denoiser, NOISE, lambda x: -(x**2).sum(-1), backend.array(np.zeros((3, 2))), 5)
    with pytest.raises(ValueError, match="bounds"):
        call(backend, "plug_and_play_langevin", *arguments, step_size=0.1, bounds=(1.0, 0.0))
