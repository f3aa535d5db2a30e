"""The NumPyro half of ``digits_rbm.py``: learning, sampling and the two probabilistic programs. Arrays go in and out.

``digits_rbm_pyro.py`` is the same file for Pyro.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import random
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO

from numpyro_ebm import GaussianBernoulliRBM
from numpyro_ebm.diagnostics import to_arviz
from numpyro_ebm.infer import run_chain
from numpyro_ebm.objectives import PersistentContrastiveDivergence

NUM_CHAINS = BATCH_SIZE = 100
PIXEL_NOISE = 0.1  # grey levels pile up at 0 and 1; a little noise gives them a density
ACTIVITY = 0.1  # of a hidden unit, roughly


# -------------------------------------------------------------------------------------------- learning


def digit_prior(num_hidden: int, centre: Any) -> GaussianBernoulliRBM:
    """The machine with its parameters as ``param`` sites.

    They are centred (Montavon & Mueller 2012; Melchior et al. 2016): ``visible`` and ``hidden`` are the biases at a
    typical hidden state (``ACTIVITY``) and a typical digit (``centre``), and filters are in units of ``scale``. A step
    in the filters then hardly moves mean activities, and learning is several times faster than in the weights and
    biases themselves.
    """
    num_visible = len(centre)
    filters = numpyro.param("filters", lambda key: 0.05 * random.normal(key, (num_visible, num_hidden)))
    scale = numpyro.param("scale", jnp.full(num_visible, 0.2), constraint=dist.constraints.positive)
    visible = numpyro.param("visible", centre)
    hidden = numpyro.param("hidden", jnp.full(num_hidden, jnp.log(ACTIVITY / (1 - ACTIVITY))))
    return GaussianBernoulliRBM.from_krizhevsky(
        filters,
        visible_bias=visible - ACTIVITY * scale * filters.sum(1),
        hidden_bias=hidden - (centre / scale) @ filters,
        scale=scale,
    )


def learning_model(digits: Any, centre: Any, num_hidden: int) -> None:
    """Observe minibatches under persistent contrastive divergence; the chains live in a mutable site."""
    rbm = digit_prior(num_hidden, centre)
    chains = numpyro.primitives.mutable("chains", {"value": digits[:NUM_CHAINS]})
    criterion = PersistentContrastiveDivergence(rbm, chains, num_steps=5)
    noise = PIXEL_NOISE * random.normal(numpyro.prng_key(), (BATCH_SIZE, digits.shape[1]))
    with numpyro.plate("digits", len(digits), subsample_size=BATCH_SIZE):
        numpyro.sample("v", criterion, obs=numpyro.subsample(digits, event_dim=1) + noise)


def train(digits: np.ndarray, *, num_hidden: int, num_epochs: int, seed: int, progress: bool) -> GaussianBernoulliRBM:
    """Fit the machine to rows of pixels by stochastic variational inference without latent variables."""
    digits = jnp.asarray(digits)
    centre = digits.mean(0)
    num_steps = num_epochs * (len(digits) // BATCH_SIZE)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps))
    svi = SVI(learning_model, lambda *_: None, optimizer, Trace_ELBO())
    fit = svi.run(random.key(seed), num_steps, digits, centre, num_hidden, progress_bar=progress)
    return numpyro.handlers.substitute(digit_prior, data=fit.params)(num_hidden, centre)


# -------------------------------------------------------------------------------------- Gibbs sampling


def hidden_probabilities(rbm: GaussianBernoulliRBM, digits: np.ndarray) -> np.ndarray:
    """Probability that each hidden unit is on, given each digit."""
    return np.asarray(rbm.hidden_given_visible(digits).mean)


def fantasies(rbm: GaussianBernoulliRBM, *, num_chains: int, num_sweeps: int, seed: int) -> np.ndarray:
    """Ends of long Gibbs chains that start from noise: E[v | h] at each chain's last hidden state."""
    key_chain, key_hidden = random.split(random.key(seed))
    value = run_chain(key_chain, rbm, 1, num_warmup=num_sweeps, num_chains=num_chains)[:, 0]
    hidden = rbm.hidden_given_visible(value).sample(key_hidden)
    return np.asarray(rbm.visible_given_hidden(hidden).mean)


def denoise(
    rbm: GaussianBernoulliRBM, noisy: np.ndarray, noise_scale: float, *, seed: int, **chains: int
) -> np.ndarray:
    """Posterior draws of ``v`` given ``y ~ Normal(v, noise_scale)``: the posterior is a machine of the same family.

    :return: shape (chains, draws, digits, pixels).
    """
    return np.asarray(run_chain(random.key(seed), rbm.condition_on_noisy(noisy, noise_scale), **chains))


def inpaint(
    rbm: GaussianBernoulliRBM, known: np.ndarray, values: np.ndarray, *, seed: int, **chains: int
) -> np.ndarray:
    """Draws of the other pixels given those at the indices ``known``, which is again a machine of the same family.

    :return: shape (chains, draws, digits, unknown pixels).
    """
    return np.asarray(run_chain(random.key(seed), rbm.condition(known, values), **chains))


# ------------------------------------------------------------------------------ probabilistic programs


def denoising_model(prior: GaussianBernoulliRBM, noisy: np.ndarray, noise_scale: float) -> None:
    """A clean digit from the machine, seen through Gaussian noise."""
    with numpyro.plate("digits", len(noisy)):
        clean = numpyro.sample("v", prior)
        numpyro.sample("y", dist.Normal(clean, noise_scale).to_event(1), obs=noisy)


def inpainting_model(prior: GaussianBernoulliRBM, known: np.ndarray, values: np.ndarray) -> None:
    """The pixels of a digit that are not known."""
    with numpyro.plate("digits", len(values)):
        numpyro.sample("v", prior.condition(known, values))


def nuts(model: Any, *args: Any, num_warmup: int, num_samples: int, num_chains: int, seed: int, progress: bool) -> Any:
    """NumPyro's own NUTS on one of the models above, exported to ArviZ."""
    mcmc = MCMC(
        NUTS(model),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=progress,
    )
    mcmc.run(random.key(seed), *args, extra_fields=("diverging", "num_steps", "accept_prob"))
    return to_arviz(mcmc)
