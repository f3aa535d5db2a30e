"""The NumPyro half of ``vae_digits.py``, with flax.nnx: learning, drawing, judging. Arrays go in and out.

``vae_digits_pyro.py`` is the same file for Pyro.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax, random
from numpyro.infer import SVI, Trace_ELBO
from tqdm.auto import trange

from numpyro_ebm.variational import (
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
    rngs = nnx.Rngs(seed)
    encoder = make_network((num_pixels, *WIDTHS, 2 * latent_size), rngs)
    decoder = make_network((latent_size, *WIDTHS[::-1], num_pixels), rngs)
    if num_components:
        prior = MixturePrior(num_components, latent_size, spread=SPREAD, rng_key=rngs.params())
        return VAE(encoder, decoder, latent_size, prior=prior, name=name)
    return VAE(encoder, decoder, latent_size, name=name)


def make_network(sizes: tuple[int, int, int, int], rngs: nnx.Rngs) -> nnx.Sequential:
    """Three layers."""
    first, second, third = (nnx.Linear(*pair, rngs=rngs) for pair in itertools.pairwise(sizes))
    return nnx.Sequential(first, nnx.gelu, second, nnx.gelu, third)


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
    levels, size = jnp.asarray(images), len(images)
    vae = make_vae(levels.shape[1], latent_size, num_components, name, seed)
    schedule = optax.cosine_decay_schedule(RATE, num_epochs * size // BATCH_SIZE)
    svi = SVI(vae.model, vae.guide, optax.adam(schedule), Trace_ELBO())

    @jax.jit
    def run_epoch(state: Any, key: Any, kl_weight: Any) -> tuple[Any, Any]:
        key_order, key_pixels = random.split(key)
        pixels = random.bernoulli(key_pixels, random.permutation(key_order, levels)).astype(levels.dtype)
        batches = pixels.reshape(-1, BATCH_SIZE, levels.shape[1])
        state, losses = lax.scan(lambda *args: svi.update(*args, size=size, kl_weight=kl_weight), state, batches)
        return state, losses.mean() / size

    key, key_init = random.split(random.key(seed))
    state = jax.jit(lambda key, batch: svi.init(key, batch, size=size))(key_init, jnp.round(levels[:BATCH_SIZE]))
    with trange(num_epochs, disable=not progress, desc=name, unit="epoch") as epochs:
        for epoch in epochs:
            kl_weight = min(1.0, (epoch + 1) / num_annealed)
            state, loss = run_epoch(state, random.fold_in(key, epoch), jnp.float32(kl_weight))
            epochs.set_postfix(loss=f"{loss:.1f}")
    return vae.with_parameters(svi.get_params(state))


# -------------------------------------------------------------------------------------------- drawing


def decode_posterior(vae: VAE, digits: np.ndarray, num_draws: int, *, seed: int) -> np.ndarray:
    """E[x | z] at draws from q(z | x), shape (draws, digits, pixels)."""
    decode = jax.jit(lambda digits, key: vae.decode(vae.encode(digits).sample(key, (num_draws,))).mean)
    return np.asarray(decode(digits, random.key(seed)))


def decode_prior(vae: VAE, num_draws: int, *, seed: int) -> np.ndarray:
    """E[x | z] at draws from p(z), shape (draws, pixels)."""
    return np.asarray(jax.jit(lambda latent: vae.decode(latent).mean)(sample_prior(vae, num_draws, seed=seed)))


def sample_prior(vae: VAE, num_draws: int, *, seed: int) -> np.ndarray:
    """Draws from p(z)."""
    return np.asarray(vae.prior.distribution().sample(random.key(seed), (num_draws,)))


def sample_posterior(vae: VAE, digits: np.ndarray, *, seed: int) -> np.ndarray:
    """One draw from q(z | x) for each digit."""
    return np.asarray(vae.encode(digits).sample(random.key(seed)))


def prior_density(vae: VAE, latent: np.ndarray) -> np.ndarray:
    """The prior's density at rows of z."""
    return np.asarray(jax.jit(lambda latent: jnp.exp(vae.log_prior(latent)))(latent))


def draw_reconstructions(vae: VAE, digits: np.ndarray, shape: tuple[int, int], axis: Any, *, seed: int) -> None:
    """The library's picture of digits and what becomes of them."""
    plot_reconstructions(vae, digits, shape, rng_key=random.key(seed), ax=axis)


def draw_traversal(vae: VAE, digit: np.ndarray, shape: tuple[int, int], axis: Any) -> None:
    """The library's picture of decodings along each latent dimension, through the posterior mean of a digit."""
    start = vae.encode(digit[None]).mean[0]
    plot_traversal(vae, shape, start=start, ax=axis)


def draw_latent(vae: VAE, digits: np.ndarray, labels: np.ndarray, axis: Any, *, seed: int) -> None:
    """The library's picture of the aggregated posterior over the prior."""
    plot_latent(vae, digits, labels=labels, rng_key=random.key(seed), ax=axis)


# -------------------------------------------------------------------------------------------- judging


def judge(vae: VAE, digits: np.ndarray, num_draws: int, num_importance: int, *, seed: int) -> dict[str, float]:
    """The ELBO and its terms, the importance-weighted log-likelihood and the number of active units."""

    @jax.jit
    def measure(digits: Any, key: Any) -> tuple[Any, ...]:
        key_terms, key_weights = random.split(key)
        terms = elbo_decomposition(vae, digits, num_draws, rng_key=key_terms)
        estimates = importance_weighted_log_likelihood(vae, digits, num_importance, CHUNK, rng_key=key_weights)
        return terms, estimates.mean(), active_units(vae, digits).sum()

    terms, log_likelihood, active = measure(digits, random.key(seed))
    found = {name: float(term) for name, term in terms._asdict().items()}
    return found | {"log_likelihood": float(log_likelihood), "active": int(active)}


def gaps(vae: VAE, digits: np.ndarray, num_steps: int, num_chains: int, *, seed: int) -> dict[str, float]:
    """Mean amortisation and approximation gap by Langevin chains, and the share of moves that these accepted."""
    key_refine, key_gap = random.split(random.key(seed))
    refined = refine_posterior(vae, digits, num_steps, STEP_SIZE, num_chains, rng_key=key_refine)
    gap = inference_gap(vae, digits, refined.latent, batch_size=CHUNK, rng_key=key_gap)
    means = {"amortization": gap.amortization, "approximation": gap.approximation, "accepted": refined.accept_prob}
    return {name: float(values.mean()) for name, values in means.items()}
