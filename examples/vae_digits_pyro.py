"""The Pyro half of ``vae_digits.py``: learning, drawing, judging. Arrays go in and out.

``vae_digits_numpyro.py`` is the same file for NumPyro.
"""

import itertools
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from tqdm.auto import trange

from pyro_ebm.variational import (
    VAE,
    MixturePrior,
    active_units,
    elbo_decomposition,
    importance_weighted_log_likelihood,
    inference_gap,
    plot_latent,
    plot_reconstructions,
    plot_traversal,
    refine_posterior,
)

WIDTHS, SPREAD, BATCH_SIZE, RATE, CHUNK = (400, 256), 1.5, 50, 2e-3, 10
STEP_SIZE = 0.8  # of Langevin moves, in the encoder's standard deviations


def make_vae(num_pixels: int, latent_size: int, num_components: int, name: str, seed: int) -> VAE:
    """An autoencoder before learning; no components stand for the prior N(0, I)."""
    pyro.set_rng_seed(seed)
    encoder = make_network((num_pixels, *WIDTHS, 2 * latent_size))
    decoder = make_network((latent_size, *WIDTHS[::-1], num_pixels))
    if num_components:
        prior = MixturePrior(num_components, latent_size, spread=SPREAD)
        return VAE(encoder, decoder, latent_size, prior=prior, name=name)
    return VAE(encoder, decoder, latent_size, name=name)


def make_network(sizes: tuple[int, int, int, int]) -> torch.nn.Sequential:
    """Three layers."""
    first, second, third = (make_layer(*pair) for pair in itertools.pairwise(sizes))
    return torch.nn.Sequential(first, torch.nn.GELU(), second, torch.nn.GELU(), third)


def make_layer(num_inputs: int, num_outputs: int) -> torch.nn.Linear:
    """A layer that starts as those of flax do."""
    layer = torch.nn.Linear(num_inputs, num_outputs)
    torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    torch.nn.init.zeros_(layer.bias)
    return layer


# -------------------------------------------------------------------------------------------- learning


def train(
    images: np.ndarray,
    latent_size: int,
    num_components: int,
    *,
    name: str,
    num_epochs: int,
    num_annealed: int,
    seed: int,
    progress: bool,
) -> VAE:
    """SVI over minibatches, whose pixels are drawn anew in every epoch; the KL's weight rises to 1 at first."""
    pyro.clear_param_store()
    levels, size = torch.as_tensor(images), len(images)
    vae = make_vae(levels.shape[1], latent_size, num_components, name, seed)
    options = {"optimizer": torch.optim.Adam, "optim_args": {"lr": RATE}, "T_max": num_epochs}
    schedule = pyro.optim.CosineAnnealingLR(options)
    svi = SVI(vae.model, vae.guide, schedule, Trace_ELBO())

    def run_epoch(kl_weight: float) -> float:
        pixels = torch.bernoulli(levels[torch.randperm(size)])
        losses = [svi.step(batch, size=size, kl_weight=kl_weight) for batch in pixels.split(BATCH_SIZE)]
        schedule.step()
        return sum(losses) / len(losses) / size

    with trange(num_epochs, disable=not progress, desc=name, unit="epoch") as epochs:
        for epoch in epochs:
            loss = run_epoch(min(1.0, (epoch + 1) / num_annealed))
            epochs.set_postfix(loss=f"{loss:.1f}")
    return vae.eval().requires_grad_(False)


# -------------------------------------------------------------------------------------------- drawing


def decode_posterior(vae: VAE, digits: np.ndarray, num_draws: int, *, seed: int) -> np.ndarray:
    """E[x | z] at draws from q(z | x), shape (draws, digits, pixels)."""
    pyro.set_rng_seed(seed)
    return vae.decode(vae.encode(torch.as_tensor(digits)).sample((num_draws,))).mean.numpy()


def decode_prior(vae: VAE, num_draws: int, *, seed: int) -> np.ndarray:
    """E[x | z] at draws from p(z), shape (draws, pixels)."""
    return vae.decode(torch.as_tensor(sample_prior(vae, num_draws, seed=seed))).mean.numpy()


def sample_prior(vae: VAE, num_draws: int, *, seed: int) -> np.ndarray:
    """Draws from p(z)."""
    pyro.set_rng_seed(seed)
    return vae.prior.distribution().sample((num_draws,)).numpy()


def sample_posterior(vae: VAE, digits: np.ndarray, *, seed: int) -> np.ndarray:
    """One draw from q(z | x) for each digit."""
    pyro.set_rng_seed(seed)
    return vae.encode(torch.as_tensor(digits)).sample().numpy()


def prior_density(vae: VAE, latent: np.ndarray) -> np.ndarray:
    """The prior's density at rows of z."""
    return vae.log_prior(torch.as_tensor(latent)).exp().numpy()


def draw_reconstructions(vae: VAE, digits: np.ndarray, shape: tuple[int, int], axis: Any, *, seed: int) -> None:
    """The library's picture of digits and what becomes of them."""
    pyro.set_rng_seed(seed)
    plot_reconstructions(vae, torch.as_tensor(digits), shape, ax=axis)


def draw_traversal(vae: VAE, digit: np.ndarray, shape: tuple[int, int], axis: Any) -> None:
    """The library's picture of decodings along each latent dimension, through the posterior mean of a digit."""
    start = vae.encode(torch.as_tensor(digit)[None]).mean[0]
    plot_traversal(vae, shape, start=start, ax=axis)


def draw_latent(vae: VAE, digits: np.ndarray, labels: np.ndarray, axis: Any, *, seed: int) -> None:
    """The library's picture of the aggregated posterior over the prior."""
    pyro.set_rng_seed(seed)
    plot_latent(vae, torch.as_tensor(digits), labels=labels, ax=axis)


# -------------------------------------------------------------------------------------------- judging


def judge(vae: VAE, digits: np.ndarray, num_draws: int, num_importance: int, *, seed: int) -> dict[str, float]:
    """The ELBO and its terms, the importance-weighted log-likelihood and the number of active units."""
    pyro.set_rng_seed(seed)
    data = torch.as_tensor(digits)
    terms = elbo_decomposition(vae, data, num_draws)
    estimates = importance_weighted_log_likelihood(vae, data, num_importance, CHUNK)
    found = {name: float(term) for name, term in terms._asdict().items()}
    return found | {"log_likelihood": float(estimates.mean()), "active": int(active_units(vae, data).sum())}


def gaps(vae: VAE, digits: np.ndarray, num_steps: int, num_chains: int, *, seed: int) -> dict[str, float]:
    """Mean amortisation and approximation gap by Langevin chains, and the share of moves that these accepted."""
    pyro.set_rng_seed(seed)
    data = torch.as_tensor(digits)
    refined = refine_posterior(vae, data, num_steps, STEP_SIZE, num_chains)
    gap = inference_gap(vae, data, refined.latent, batch_size=CHUNK)
    means = {"amortization": gap.amortization, "approximation": gap.approximation, "accepted": refined.accept_prob}
    return {name: float(values.mean()) for name, values in means.items()}
