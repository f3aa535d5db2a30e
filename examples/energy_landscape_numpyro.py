"""The NumPyro half of ``energy_landscape.py``: the autoencoders, how they learn, and their Markov chains.

Arrays go in and out. ``energy_landscape_pyro.py`` is the same file for Pyro.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from flax import nnx
from jax import random
from jax.scipy.special import logsumexp
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO

from numpyro_ebm import EnergyDistribution, GradientStepEnergy, LineIntegralEnergy, TiedAutoencoder
from numpyro_ebm.diagnostics import asymmetry, circulation, fixed_points, plot_field
from numpyro_ebm.infer import Hamiltonian, run_chain
from numpyro_ebm.objectives import ScoreMatching

NOISE = 0.15  # standard deviation of what the denoisers remove; its square is their temperature
SMOOTHING = 0.1  # noise on the data of score matching, which would otherwise fit single points
PENALTY = 3.0  # on the asymmetry of the deep network's field
NUM_HIDDEN, NUM_DEEP = 100, 64  # units of the tied layer, and of each of the deep network's two
BATCH_SIZE = 256
LEARNING_RATE = 0.01


# ------------------------------------------------------------------------------------------ the models


def tied(points: Any, network: Any, noise: float, log_partition: Any = "auto") -> TiedAutoencoder:
    """One layer of tanh units whose answers go back by the same weights, scaled; each bends at some training point."""
    del network
    weights = numpyro.param("weights", lambda key: 2 * random.normal(key, (2, NUM_HIDDEN)))
    bends = lambda key: points[random.choice(key, len(points), (NUM_HIDDEN,))]
    hidden_bias = numpyro.param("hidden_bias", lambda key: -(bends(key) * weights.T).sum(1))
    visible_bias = numpyro.param("visible_bias", jnp.zeros(2))
    gain = numpyro.param("gain", jnp.full(NUM_HIDDEN, 1 / NUM_HIDDEN))
    options = {"activation": "tanh", "temperature": noise**2, "gain": gain, "log_partition": log_partition}
    return TiedAutoencoder(weights, hidden_bias=hidden_bias, visible_bias=visible_bias, **options)


def untied(points: Any, network: nnx.Module, log_partition: Any = "auto") -> LineIntegralEnergy:
    """The network's field, integrated along rays, which gives an energy whether or not the field has one."""
    del points
    return LineIntegralEnergy(learned(network), (2,), temperature=NOISE**2, log_partition=log_partition)


def gradient_step(points: Any, network: nnx.Module, log_partition: Any = "auto") -> GradientStepEnergy:
    """The energy of the network's residual, whose gradient step is an autoencoder."""
    del points
    return GradientStepEnergy(learned(network), (2,), scale=NOISE, log_partition=log_partition)


def deep_network(seed: int) -> nnx.Module:
    """Three layers whose weights have nothing to do with each other."""
    initializers = {
        "kernel_init": nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),  # as in torch
        "bias_init": nnx.initializers.normal(0.4),
    }
    linear = partial(nnx.Linear, rngs=nnx.Rngs(seed), **initializers)
    return nnx.Sequential(linear(2, NUM_DEEP), nnx.tanh, linear(NUM_DEEP, NUM_DEEP), nnx.tanh, linear(NUM_DEEP, 2))


def learned(network: nnx.Module) -> nnx.Module:
    """The network with its parameters as a ``param`` site."""
    graph, parameters = nnx.split(network)
    return nnx.merge(graph, numpyro.param("network", parameters))


# ------------------------------------------------------------------------------------ how they observe


def denoise(model: Any, points: Any) -> None:
    """A clean point given the same with noise: Gaussian around the reconstruction (Vincent 2011)."""
    noisy = points + NOISE * random.normal(numpyro.prng_key(), points.shape)
    numpyro.sample("x", dist.Normal(model.reconstruct(noisy), NOISE).to_event(1), obs=points)


def contract(model: TiedAutoencoder, points: Any) -> None:
    """A clean point given itself, and noise^2 |dr/dx|_F^2 against the identity (Alain & Bengio 2014).

    That is the contractive reconstruction, not the contractive encoder of Rifai et al. (2011).
    """
    slopes = model.gain * model.activation.derivative(points @ model.weights + model.hidden_bias)
    jacobian = (model.weights * slopes[:, None]) @ model.weights.T
    numpyro.factor("contraction", -0.5 * (jacobian**2).sum((-2, -1)))
    numpyro.sample("x", dist.Normal(model.reconstruct(points), NOISE).to_event(1), obs=points)


def match_score(model: TiedAutoencoder, points: Any) -> None:
    """Score matching: the criterion stands where the distribution would (Hyvarinen 2005)."""
    points = points + SMOOTHING * random.normal(numpyro.prng_key(), points.shape)
    numpyro.sample("x", ScoreMatching(model), obs=points)


def denoise_symmetrically(model: LineIntegralEnergy, points: Any) -> None:
    """Denoising, with a penalty on the field's asymmetry also where no data are (Chao et al. 2023)."""
    denoise(model, points)
    around = points + 2 * NOISE * random.normal(numpyro.prng_key(), points.shape)
    numpyro.factor("symmetry", -PENALTY * asymmetry(model, around, estimator="hutchinson"))


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
    points, network = jnp.asarray(points), deep_network(seed)

    def learning_model() -> None:
        model = build(points, network)
        with numpyro.plate("points", len(points), subsample_size=BATCH_SIZE):
            observe(model, numpyro.subsample(points, event_dim=1))

    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, num_steps))
    svi = SVI(learning_model, lambda: None, optimizer, Trace_ELBO())
    fit = svi.run(random.key(seed), num_steps, progress_bar=progress)
    trained = numpyro.handlers.substitute(partial(build, points, network), data=fit.params)
    model = trained()
    return trained(log_partition=model.log_partition if model.is_normalized else log_integral(model))


@jax.jit
def log_integral(model: EnergyDistribution) -> jax.Array:
    """log of the integral of ``exp(-energy)`` over a square that holds it all."""
    axis = jnp.linspace(-4.0, 4.0, 201)
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1)
    return logsumexp(-model.energy(grid)) + 2 * jnp.log(axis[1] - axis[0])


# -------------------------------------------------------------------------------- what they look like


@jax.jit
def log_density(model: EnergyDistribution, points: Any) -> jax.Array:
    """Normalised log-density, shape ``(...)``."""
    return model.log_prob(points)


@jax.jit
def field_asymmetry(model: EnergyDistribution, points: Any) -> jax.Array:
    """Asymmetry of the Jacobian of the model's field, from 0 to 1, shape ``(...)``."""
    return asymmetry(model, points)


@partial(jax.jit, static_argnames="radius")
def field_circulation(model: EnergyDistribution, points: Any, radius: float) -> jax.Array:
    """Circulation of the model's field around a circle about each point, shape ``(...)``."""
    return circulation(model, points, radius=radius)


@jax.jit
def field_and_force(model: Any, points: Any) -> tuple[jax.Array, jax.Array]:
    """The field r(x) - x, and what the energy makes of it: the score times the temperature."""
    temperature = model.scale**2 if isinstance(model, GradientStepEnergy) else model.temperature
    return model.field(points), temperature * model.score(points)


def draw_landscape(ax: Any, model: Any, starts: np.ndarray, bounds: tuple[float, float], ceiling: float) -> list[str]:
    """Streamlines of the field over the energy from its minimum up to ``ceiling``, and the kinds of fixed points."""
    axis = jnp.linspace(*bounds, 101)
    highest = log_density(model, jnp.stack(jnp.meshgrid(axis, axis), -1)).max()
    energy = lambda point: jnp.minimum(highest - log_density(model, point), ceiling)
    found = fixed_points(model, starts)
    plot_field(model, energy, fixed_points=found, bounds=bounds, ax=ax)
    return list(found.kinds)


# -------------------------------------------------------------------------------------- Markov chains


def hamiltonian(model: EnergyDistribution, *, seed: int, **chains: int) -> np.ndarray:
    """Hamiltonian Monte Carlo along the score, from standard normal starts, shape (chains, draws, 2)."""
    return np.asarray(run_chain(random.key(seed), model, sampler=Hamiltonian(num_leapfrog=16), **chains))


def nuts(
    model: EnergyDistribution, *, num_warmup: int, num_samples: int, num_chains: int, seed: int, progress: bool
) -> np.ndarray:
    """NumPyro's own NUTS on the program that draws one latent point from the model, shape (chains, draws, 2)."""
    mcmc = MCMC(
        NUTS(lambda: numpyro.sample("x", model)),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=progress,
    )
    mcmc.run(random.key(seed))
    return np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
