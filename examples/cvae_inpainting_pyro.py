"""The Pyro half of ``cvae_inpainting.py``. Arrays go in and out.

``cvae_inpainting_numpyro.py`` is the same file for NumPyro.
"""

import itertools
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import nn
from tqdm.auto import trange

from cvae_inpainting import BLOCK, MARGIN
from pyro_ebm.variational import CVAE, importance_weighted_log_likelihood

NUM_HIDDEN, NUM_VISIBLE = BLOCK**2, (BLOCK + 2 * MARGIN) ** 2
LATENT_SIZE, WIDTH, RATE = 32, 384, 2e-3


class Network(nn.Module):
    """Two hidden layers, from all its inputs side by side."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        sizes = (num_inputs, WIDTH, WIDTH, num_outputs)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)  # as in flax.nnx
            nn.init.zeros_(layer.bias)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        *hidden, last = self.layers
        x = torch.cat(inputs, -1)
        for layer in hidden:
            x = torch.relu(layer(x))
        return last(x)


class Blind(Network):
    """A decoder that ignores z."""

    def forward(self, z: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.zeros_like(z), condition)


def make_model(family: str) -> CVAE:
    """The model with its initial parameters."""
    encoder = Network(NUM_HIDDEN + NUM_VISIBLE, 2 * LATENT_SIZE)
    make_decoder = Blind if family == "no latent variables" else Network
    decoder = make_decoder(LATENT_SIZE + NUM_VISIBLE, NUM_HIDDEN)
    prior = Network(NUM_VISIBLE, 2 * LATENT_SIZE) if family == "learned prior" else "standard"
    return CVAE(encoder, decoder, LATENT_SIZE, prior=prior)


def train(family: str, epochs: Any, seed: int, progress: bool) -> CVAE:
    """Adam with a cosine schedule on the ELBO of minibatches."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    model = make_model(family)
    num_data = len(epochs.images)
    options = {"optimizer": torch.optim.Adam, "optim_args": {"lr": RATE}, "T_max": epochs.count * epochs.num_steps}
    scheduler = pyro.optim.CosineAnnealingLR(options)
    svi = SVI(model.model, model.guide, scheduler, Trace_ELBO())

    with trange(epochs.count, disable=not progress, desc=family, unit="epoch") as bar:
        for epoch in bar:
            losses, kl_weight = [], epochs.kl_weight(epoch)
            for batch in zip(*map(torch.as_tensor, epochs.minibatches(epoch)), strict=True):
                losses.append(svi.step(*batch, size=num_data, kl_weight=kl_weight))
                scheduler.step()
            bar.set_postfix({"objective": f"{-np.mean(losses) / num_data:.2f}"})
    return model


def log_likelihood(
    model: CVAE, hidden: np.ndarray, surroundings: np.ndarray, num_samples: int, seed: int
) -> np.ndarray:
    """Importance-weighted estimates of log p(x | c), one for each block."""
    pyro.set_rng_seed(seed)
    data = torch.as_tensor(hidden), torch.as_tensor(surroundings)
    return importance_weighted_log_likelihood(model, data, num_samples, batch_size=10).numpy()


@torch.no_grad()
def complete(model: CVAE, surroundings: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Means of p(x | z, c) at z drawn from the prior, shape (count, blocks, pixels)."""
    pyro.set_rng_seed(seed)
    condition = torch.as_tensor(surroundings)
    drawn = Predictive(model.model, num_samples=count)(None, condition)
    return model.decode(drawn["z"], condition).mean.numpy()
