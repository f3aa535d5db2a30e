"""The Pyro half of ``digits_rbm.py``: learning, sampling and the two probabilistic programs. Arrays go in and out.

``digits_rbm_numpyro.py`` is the same file for NumPyro.
"""

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from tqdm.auto import trange

from pyro_ebm import GaussianBernoulliRBM
from pyro_ebm.diagnostics import to_arviz
from pyro_ebm.infer import run_chain
from pyro_ebm.objectives import PersistentContrastiveDivergence

torch.set_num_threads(1)  # matrices this small gain nothing from a second thread, and lose much on a shared machine

NUM_CHAINS = BATCH_SIZE = 100
PIXEL_NOISE = 0.1  # grey levels pile up at 0 and 1; a little noise gives them a density
ACTIVITY = 0.1  # of a hidden unit, roughly


# -------------------------------------------------------------------------------------------- learning


def digit_prior(num_hidden: int, centre: torch.Tensor) -> GaussianBernoulliRBM:
    """The machine with its parameters as ``param`` sites.

    They are centred (Montavon & Mueller 2012; Melchior et al. 2016): ``visible`` and ``hidden`` are the biases at a
    typical hidden state (``ACTIVITY``) and a typical digit (``centre``), and filters are in units of ``scale``. A step
    in the filters then hardly moves mean activities, and learning is several times faster than in the weights and
    biases themselves.
    """
    num_visible = len(centre)
    filters = pyro.param("filters", lambda: 0.05 * torch.randn(num_visible, num_hidden))
    scale = pyro.param("scale", lambda: torch.full((num_visible,), 0.2), constraint=dist.constraints.positive)
    visible = pyro.param("visible", centre.clone())  # SVI updates the tensor given here in place
    hidden = pyro.param("hidden", lambda: torch.full((num_hidden,), math.log(ACTIVITY / (1 - ACTIVITY))))
    return GaussianBernoulliRBM.from_krizhevsky(
        filters,
        visible_bias=visible - ACTIVITY * scale * filters.sum(1),
        hidden_bias=hidden - (centre / scale) @ filters,
        scale=scale,
    )


def learning_model(digits: torch.Tensor, centre: torch.Tensor, num_hidden: int, chains: torch.Tensor) -> None:
    """Observe minibatches under persistent contrastive divergence, which advances ``chains`` in place."""
    rbm = digit_prior(num_hidden, centre)
    criterion = PersistentContrastiveDivergence(rbm, chains, num_steps=5)
    noise = PIXEL_NOISE * torch.randn(BATCH_SIZE, digits.shape[1])
    with pyro.plate("digits", len(digits), subsample_size=BATCH_SIZE):
        pyro.sample("v", criterion, obs=pyro.subsample(digits, event_dim=1) + noise)


def train(digits: np.ndarray, *, num_hidden: int, num_epochs: int, seed: int, progress: bool) -> GaussianBernoulliRBM:
    """Fit the machine to rows of pixels by stochastic variational inference without latent variables."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    digits = torch.as_tensor(digits)
    centre, chains = digits.mean(0), digits[:NUM_CHAINS].clone()
    num_steps = num_epochs * (len(digits) // BATCH_SIZE)
    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 2e-3}, "T_max": num_steps}
    scheduler = pyro.optim.CosineAnnealingLR(adam)
    svi = SVI(learning_model, lambda *_: None, scheduler, Trace_ELBO())
    for _ in trange(num_steps, disable=not progress):
        svi.step(digits, centre, num_hidden, chains)
        scheduler.step()
    with torch.no_grad():
        return digit_prior(num_hidden, centre)


# -------------------------------------------------------------------------------------- Gibbs sampling


def hidden_probabilities(rbm: GaussianBernoulliRBM, digits: np.ndarray) -> np.ndarray:
    """Probability that each hidden unit is on, given each digit."""
    return rbm.hidden_given_visible(torch.as_tensor(digits)).mean.numpy()


def fantasies(rbm: GaussianBernoulliRBM, *, num_chains: int, num_sweeps: int, seed: int) -> np.ndarray:
    """Ends of long Gibbs chains that start from noise: E[v | h] at each chain's last hidden state."""
    pyro.set_rng_seed(seed)
    value = run_chain(rbm, 1, num_warmup=num_sweeps, num_chains=num_chains)[:, 0]
    hidden = rbm.hidden_given_visible(value).sample()
    return rbm.visible_given_hidden(hidden).mean.numpy()


def denoise(
    rbm: GaussianBernoulliRBM, noisy: np.ndarray, noise_scale: float, *, seed: int, **chains: int
) -> np.ndarray:
    """Posterior draws of ``v`` given ``y ~ Normal(v, noise_scale)``: the posterior is a machine of the same family.

    :return: shape (chains, draws, digits, pixels).
    """
    pyro.set_rng_seed(seed)
    return run_chain(rbm.condition_on_noisy(torch.as_tensor(noisy), noise_scale), **chains).numpy()


def inpaint(
    rbm: GaussianBernoulliRBM, known: np.ndarray, values: np.ndarray, *, seed: int, **chains: int
) -> np.ndarray:
    """Draws of the other pixels given those at the indices ``known``, which is again a machine of the same family.

    :return: shape (chains, draws, digits, unknown pixels).
    """
    pyro.set_rng_seed(seed)
    return run_chain(rbm.condition(known, torch.as_tensor(values)), **chains).numpy()


# ------------------------------------------------------------------------------ probabilistic programs


def denoising_model(prior: GaussianBernoulliRBM, noisy: torch.Tensor, noise_scale: float) -> None:
    """A clean digit from the machine, seen through Gaussian noise."""
    with pyro.plate("digits", len(noisy)):
        clean = pyro.sample("v", prior)
        pyro.sample("y", dist.Normal(clean, noise_scale).to_event(1), obs=noisy)


def inpainting_model(prior: GaussianBernoulliRBM, known: np.ndarray, values: torch.Tensor) -> None:
    """The pixels of a digit that are not known."""
    with pyro.plate("digits", len(values)):
        pyro.sample("v", prior.condition(known, values))


def nuts(model: Any, *args: Any, num_warmup: int, num_samples: int, num_chains: int, seed: int, progress: bool) -> Any:
    """Pyro's own NUTS on one of the models above, one chain after the other in this process, exported to ArviZ."""
    pyro.set_rng_seed(seed)
    tensors = [torch.as_tensor(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
    draws = []
    for _ in range(num_chains):
        mcmc = MCMC(NUTS(model), num_samples, warmup_steps=num_warmup, disable_progbar=not progress)
        mcmc.run(*tensors)
        draws.append(mcmc.get_samples()["v"])
    return to_arviz(posterior={"v": torch.stack(draws)})
