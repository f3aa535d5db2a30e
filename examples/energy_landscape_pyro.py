"""The Pyro half of ``energy_landscape.py``: the autoencoders, how they learn, and their Markov chains.

Arrays go in and out. ``energy_landscape_numpyro.py`` is the same file for NumPyro.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from torch import nn
from tqdm.auto import trange

from pyro_ebm import EnergyDistribution, GradientStepEnergy, LineIntegralEnergy, TiedAutoencoder
from pyro_ebm.diagnostics import asymmetry, circulation, fixed_points, plot_field
from pyro_ebm.infer import Hamiltonian, run_chain
from pyro_ebm.objectives import ScoreMatching

torch.set_num_threads(1)  # networks this small gain nothing from a second thread, and lose much on a shared machine

NOISE = 0.15  # standard deviation of what the denoisers remove; its square is their temperature
SMOOTHING = 0.1  # noise on the data of score matching, which would otherwise fit single points
PENALTY = 3.0  # on the asymmetry of the deep network's field
NUM_HIDDEN, NUM_DEEP = 100, 64  # units of the tied layer, and of each of the deep network's two
BATCH_SIZE = 256
LEARNING_RATE = 0.01


# ------------------------------------------------------------------------------------------ the models


def tied(points: torch.Tensor, network: Any, noise: float, log_partition: Any = "auto") -> TiedAutoencoder:
    """One layer of tanh units whose answers go back by the same weights, scaled; each bends at some training point."""
    del network
    weights = pyro.param("weights", lambda: 2 * torch.randn(2, NUM_HIDDEN))
    bends = lambda: points[torch.randint(len(points), (NUM_HIDDEN,))]
    hidden_bias = pyro.param("hidden_bias", lambda: -(bends() * weights.detach().T).sum(1))
    visible_bias = pyro.param("visible_bias", lambda: torch.zeros(2))
    gain = pyro.param("gain", lambda: torch.full((NUM_HIDDEN,), 1 / NUM_HIDDEN))
    options = {"activation": "tanh", "temperature": noise**2, "gain": gain, "log_partition": log_partition}
    return TiedAutoencoder(weights, hidden_bias=hidden_bias, visible_bias=visible_bias, **options)


def untied(points: torch.Tensor, network: nn.Module, log_partition: Any = "auto") -> LineIntegralEnergy:
    """The network's field, integrated along rays, which gives an energy whether or not the field has one."""
    del points
    return LineIntegralEnergy(learned(network), (2,), temperature=NOISE**2, log_partition=log_partition)


def gradient_step(points: torch.Tensor, network: nn.Module, log_partition: Any = "auto") -> GradientStepEnergy:
    """The energy of the network's residual, whose gradient step is an autoencoder."""
    del points
    return GradientStepEnergy(learned(network), (2,), scale=NOISE, log_partition=log_partition)


def deep_network() -> nn.Module:
    """Three layers whose weights have nothing to do with each other."""
    linear = nn.Linear
    return nn.Sequential(linear(2, NUM_DEEP), nn.Tanh(), linear(NUM_DEEP, NUM_DEEP), nn.Tanh(), linear(NUM_DEEP, 2))


def learned(network: nn.Module) -> nn.Module:
    """The network with its parameters as ``param`` sites."""
    return pyro.module("network", network)


# ------------------------------------------------------------------------------------ how they observe


def denoise(model: Any, points: torch.Tensor) -> None:
    """A clean point given the same with noise: Gaussian around the reconstruction (Vincent 2011)."""
    noisy = points + NOISE * torch.randn_like(points)
    pyro.sample("x", dist.Normal(model.reconstruct(noisy), NOISE).to_event(1), obs=points)


def contract(model: TiedAutoencoder, points: torch.Tensor) -> None:
    """A clean point given itself, and noise^2 |dr/dx|_F^2 against the identity (Alain & Bengio 2014).

    That is the contractive reconstruction, not the contractive encoder of Rifai et al. (2011).
    """
    slopes = model.gain * model.activation.derivative(points @ model.weights + model.hidden_bias)
    jacobian = (model.weights * slopes[:, None]) @ model.weights.T
    pyro.factor("contraction", -0.5 * (jacobian**2).sum((-2, -1)))
    pyro.sample("x", dist.Normal(model.reconstruct(points), NOISE).to_event(1), obs=points)


def match_score(model: TiedAutoencoder, points: torch.Tensor) -> None:
    """Score matching: the criterion stands where the distribution would (Hyvarinen 2005)."""
    points = points + SMOOTHING * torch.randn_like(points)
    pyro.sample("x", ScoreMatching(model), obs=points)


def denoise_symmetrically(model: LineIntegralEnergy, points: torch.Tensor) -> None:
    """Denoising, with a penalty on the field's asymmetry also where no data are (Chao et al. 2023)."""
    denoise(model, points)
    around = points + 2 * NOISE * torch.randn_like(points)
    pyro.factor("symmetry", -PENALTY * asymmetry(model, around, estimator="hutchinson"))


#: How each model is made, and how it observes the data.
MODELS: dict[str, tuple[Callable[..., EnergyDistribution], Callable[[Any, Any], None]]] = {
    "tied, denoising": (partial(tied, noise=NOISE), denoise),
    "tied, contractive": (partial(tied, noise=NOISE), contract),
    "tied, score matching": (partial(tied, noise=SMOOTHING), match_score),
    "untied, denoising": (untied, denoise),
    "untied, symmetrised": (untied, denoise_symmetrically),
    "gradient step, denoising": (gradient_step, denoise),
}


def train(name: str, points: np.ndarray, *, num_steps: int, seed: int, progress: bool) -> EnergyDistribution:
    """Fit a model by stochastic variational inference without latent variables.

    Its partition function is then a constant: quadrature where the family has it, else a sum over a grid of the plane.
    """
    build, observe = MODELS[name]
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    points, network = torch.as_tensor(points), deep_network()

    def learning_model() -> None:
        model = build(points, network)
        with pyro.plate("points", len(points), subsample_size=BATCH_SIZE):
            observe(model, pyro.subsample(points, event_dim=1))

    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": LEARNING_RATE}, "T_max": num_steps}
    scheduler = pyro.optim.CosineAnnealingLR(adam)
    svi = SVI(learning_model, lambda: None, scheduler, Trace_ELBO())
    for _ in trange(num_steps, disable=not progress):
        svi.step()
        scheduler.step()
    for _, parameter in pyro.get_param_store().named_parameters():
        parameter.requires_grad_(False)
    network.eval()  # or Pyro warns that it does not register frozen parameters
    model = build(points, network)
    log_partition = model.log_partition if model.is_normalized else log_integral(model)
    return build(points, network, log_partition=log_partition)


def log_integral(model: EnergyDistribution) -> torch.Tensor:
    """log of the integral of ``exp(-energy)`` over a square that holds it all."""
    axis = torch.linspace(-4.0, 4.0, 201)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    return torch.logsumexp(-model.energy(grid).flatten(), 0) + 2 * torch.log(axis[1] - axis[0])


# -------------------------------------------------------------------------------- what they look like


def log_density(model: EnergyDistribution, points: Any) -> torch.Tensor:
    """Normalised log-density, shape ``(...)``."""
    return model.log_prob(torch.as_tensor(points))


def field_asymmetry(model: EnergyDistribution, points: Any) -> torch.Tensor:
    """Asymmetry of the Jacobian of the model's field, from 0 to 1, shape ``(...)``."""
    return asymmetry(model, points)


def field_circulation(model: EnergyDistribution, points: Any, radius: float) -> torch.Tensor:
    """Circulation of the model's field around a circle about each point, shape ``(...)``."""
    return circulation(model, points, radius=radius)


def field_and_force(model: Any, points: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The field r(x) - x, and what the energy makes of it: the score times the temperature."""
    points = torch.as_tensor(points)
    temperature = model.scale**2 if isinstance(model, GradientStepEnergy) else model.temperature
    return model.field(points), temperature * model.score(points)


def draw_landscape(ax: Any, model: Any, starts: np.ndarray, bounds: tuple[float, float], ceiling: float) -> list[str]:
    """Streamlines of the field over the energy from its minimum up to ``ceiling``, and the kinds of fixed points."""
    axis = torch.linspace(*bounds, 101)
    highest = log_density(model, torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)).max()
    energy = lambda point: (highest - log_density(model, point)).clamp(max=ceiling)
    found = fixed_points(model, starts)
    plot_field(model, energy, fixed_points=found, bounds=bounds, ax=ax)
    return list(found.kinds)


# -------------------------------------------------------------------------------------- Markov chains


def hamiltonian(model: EnergyDistribution, *, seed: int, **chains: int) -> np.ndarray:
    """Hamiltonian Monte Carlo along the score, from standard normal starts, shape (chains, draws, 2)."""
    pyro.set_rng_seed(seed)
    return run_chain(model, sampler=Hamiltonian(num_leapfrog=16), **chains).numpy()


def nuts(
    model: EnergyDistribution, *, num_warmup: int, num_samples: int, num_chains: int, seed: int, progress: bool
) -> np.ndarray:
    """Pyro's own NUTS on the program that draws one latent point from the model, shape (chains, draws, 2)."""
    pyro.set_rng_seed(seed)
    draws = []
    for _ in range(num_chains):
        kernel = NUTS(lambda: pyro.sample("x", model))
        mcmc = MCMC(kernel, num_samples, warmup_steps=num_warmup, disable_progbar=not progress)
        mcmc.run()
        draws.append(mcmc.get_samples()["x"])
    return torch.stack(draws).numpy()
