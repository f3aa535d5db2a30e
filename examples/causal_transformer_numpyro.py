"""The NumPyro half of ``causal_transformer.py``, with flax.nnx. ``causal_transformer_pyro.py`` is the same for Pyro."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from flax import nnx
from numpyro.infer import SVI, Trace_ELBO
from tqdm.auto import trange

from numpyro_ebm import CausalAutoencoder, LineIntegralEnergy
from numpyro_ebm.infer import Ancestral

NUM_PIXELS, WIDTH, NUM_HEADS, NUM_BLOCKS, BATCH_SIZE = 64, 32, 4, 2, 50


class Block(nnx.Module):
    """Causal self-attention and a feed-forward layer, each added to its normalised input."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norms = nnx.List([nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(NUM_HEADS, WIDTH, decode=False, rngs=rngs)
        self.wide, self.narrow = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs), nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        causal = jnp.tril(jnp.ones((1, NUM_PIXELS, NUM_PIXELS), bool))
        x = x + self.attention(self.norms[0](x), mask=causal)
        return x + self.narrow(nnx.gelu(self.wide(self.norms[1](x))))


class Transformer(nnx.Module):
    """Predicts every pixel from those before it: the input is shifted by one, and attention looks back only."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed, self.read_out = nnx.Linear(1, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 1, rngs=rngs)
        self.places = nnx.Param(0.5 * jax.random.normal(rngs.params(), (NUM_PIXELS, WIDTH)))
        self.blocks = nnx.List([Block(rngs) for _ in range(NUM_BLOCKS)])

    def __call__(self, pixels: jax.Array) -> jax.Array:
        x = self.embed(jnp.pad(pixels[:-1], (1, 0))[:, None]) + self.places[...]
        for block in self.blocks:
            x = block(x)
        return self.read_out(x)[:, 0]


class Model(NamedTuple):
    """A learned network, the standard deviation of every pixel given those before it, and the learning curve."""

    network: Transformer
    scale: jax.Array
    losses: np.ndarray

    def density(self, **options: Any) -> CausalAutoencoder:
        return CausalAutoencoder(self.network, (NUM_PIXELS,), scale=self.scale, **options)


def learn(train: np.ndarray, num_epochs: int, seed: int, progress: bool) -> Model:
    """Maximum likelihood by SVI: the density is exact, so the loss is the negative log-likelihood."""
    structure, start = nnx.split(Transformer(nnx.Rngs(seed)))
    num_batches = len(train) // BATCH_SIZE

    def program(batch: jax.Array) -> None:
        network = nnx.merge(structure, numpyro.param("network", start))
        scale = numpyro.param("scale", jnp.ones(NUM_PIXELS), constraint=numpyro.distributions.constraints.positive)
        with numpyro.plate("digits", BATCH_SIZE):
            numpyro.sample("pixels", CausalAutoencoder(network, (NUM_PIXELS,), scale=scale), obs=batch)

    schedule = optax.cosine_decay_schedule(3e-3, num_epochs * num_batches)
    svi = SVI(program, lambda batch: None, numpyro.optim.optax_to_numpyro(optax.adam(schedule)), Trace_ELBO())

    @jax.jit
    def epoch(state: Any, batches: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(svi.update, state, batches)

    rng, data, losses = np.random.default_rng(seed), jnp.asarray(train), []
    state = svi.init(jax.random.key(seed), data[:BATCH_SIZE])
    for _ in trange(num_epochs, disable=not progress, desc="transformer", unit="epoch"):
        order = rng.permutation(len(train))[: num_batches * BATCH_SIZE].reshape(num_batches, BATCH_SIZE)
        state, loss = epoch(state, data[order])
        losses.append(float(loss.mean()) / BATCH_SIZE)
    parameters = svi.get_params(state)
    return Model(nnx.merge(structure, parameters["network"]), parameters["scale"], np.array(losses))


def log_likelihood(model: Model, test: np.ndarray) -> float:
    """Mean log-density in nats."""
    return float(jax.jit(model.density().log_prob)(jnp.asarray(test)).mean())


def sample(model: Model, num_draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws, and after every parallel sweep the largest distance to the ancestral draws from the same noise."""
    key = jax.random.key(seed)
    draws = model.density().sample(key, (num_draws,))
    ancestral = model.density(sampler=Ancestral()).sample(key, (num_draws,))
    noise = ancestral - jax.vmap(model.network)(ancestral)

    def sweep(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        x = jax.vmap(model.network)(x) + noise
        return x, jnp.abs(x - ancestral).max()

    return np.asarray(draws), np.asarray(jax.lax.scan(sweep, jnp.zeros_like(noise), length=NUM_PIXELS)[1])


def refusal(model: Model) -> str:
    """What ``LineIntegralEnergy`` says to a causal network."""
    try:
        LineIntegralEnergy(model.network, (NUM_PIXELS,))
    except ValueError as error:
        return f"refused ({error})"
    raise AssertionError("a causal network was not found out")
