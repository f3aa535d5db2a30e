"""The Pyro half of ``causal_transformer.py``. ``causal_transformer_numpyro.py`` is the same for NumPyro."""

from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from tqdm.auto import trange

from pyro_ebm import CausalAutoencoder, LineIntegralEnergy
from pyro_ebm.infer import Ancestral

torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

NUM_PIXELS, WIDTH, NUM_HEADS, NUM_BLOCKS, BATCH_SIZE = 64, 32, 4, 2, 50


class Transformer(nn.Module):
    """Predicts every pixel from those before it: the input is shifted by one, and attention looks back only."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read_out = nn.Linear(1, WIDTH), nn.Linear(WIDTH, 1)
        self.places = nn.Parameter(0.5 * torch.randn(NUM_PIXELS, WIDTH))
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(WIDTH, NUM_HEADS, 4 * WIDTH, **options) for _ in range(NUM_BLOCKS)]
        )
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(NUM_PIXELS))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        flat = pixels.reshape(-1, NUM_PIXELS)
        x = self.embed(nn.functional.pad(flat[:, :-1], (1, 0)).unsqueeze(-1)) + self.places
        for block in self.blocks:
            x = block(x, src_mask=self.mask)
        return self.read_out(x).reshape(pixels.shape)


class Model(NamedTuple):
    """A learned network, the standard deviation of every pixel given those before it, and the learning curve."""

    network: Transformer
    scale: torch.Tensor
    losses: np.ndarray

    def density(self, **options: Any) -> CausalAutoencoder:
        return CausalAutoencoder(self.network, (NUM_PIXELS,), scale=self.scale, **options)


def learn(train: np.ndarray, num_epochs: int, seed: int, progress: bool) -> Model:
    """Maximum likelihood by SVI: the density is exact, so the loss is the negative log-likelihood."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    network, data = Transformer(), torch.as_tensor(train)
    num_batches = len(data) // BATCH_SIZE

    def program(batch: torch.Tensor) -> None:
        pyro.module("network", network)
        scale = pyro.param("scale", torch.ones(NUM_PIXELS), constraint=pyro.distributions.constraints.positive)
        with pyro.plate("digits", BATCH_SIZE):
            # (checked once, below: the probes of a causal network cost more than the step itself)
            pyro.sample(
                "pixels", CausalAutoencoder(network, (NUM_PIXELS,), scale=scale, validate_args=False), obs=batch
            )

    CausalAutoencoder(network, (NUM_PIXELS,), validate_args=True)
    decay = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 3e-3}, "T_max": num_epochs}
    scheduler = pyro.optim.CosineAnnealingLR(decay)
    svi = SVI(program, lambda batch: None, scheduler, Trace_ELBO())
    losses = []
    for _ in trange(num_epochs, disable=not progress, desc="transformer", unit="epoch"):
        batches = torch.randperm(len(data))[: num_batches * BATCH_SIZE].reshape(num_batches, BATCH_SIZE)
        losses.append(float(np.mean([svi.step(data[batch]) for batch in batches])) / BATCH_SIZE)
        scheduler.step()
    return Model(network.eval().requires_grad_(False), pyro.param("scale").detach(), np.array(losses))


def log_likelihood(model: Model, test: np.ndarray) -> float:
    """Mean log-density in nats."""
    return float(model.density().log_prob(torch.as_tensor(test)).mean())


def sample(model: Model, num_draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws, and after every parallel sweep the largest distance to the ancestral draws from the same noise."""
    pyro.set_rng_seed(seed)
    draws = model.density().sample((num_draws,))
    pyro.set_rng_seed(seed)
    ancestral = model.density(sampler=Ancestral()).sample((num_draws,))
    noise = ancestral - model.network(ancestral)
    x, gaps = torch.zeros_like(noise), []
    for _ in range(NUM_PIXELS):
        x = model.network(x) + noise
        gaps.append(float((x - ancestral).abs().max()))
    return draws.numpy(), np.array(gaps)


def refusal(model: Model) -> str:
    """What ``LineIntegralEnergy`` says to a causal network."""
    try:
        LineIntegralEnergy(model.network, (NUM_PIXELS,))
    except ValueError as error:
        return f"refused ({error})"
    raise AssertionError("a causal network was not found out")
