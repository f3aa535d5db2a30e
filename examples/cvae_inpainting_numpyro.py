"""The NumPyro half of ``cvae_inpainting.py``, with flax.nnx. Arrays go in and out.

``cvae_inpainting_pyro.py`` is the same file for Pyro.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax, random
from numpyro.infer import SVI, Predictive, Trace_ELBO
from numpyro.optim import optax_to_numpyro
from tqdm.auto import trange

from cvae_inpainting import BLOCK, MARGIN
from numpyro_ebm.variational import CVAE, importance_weighted_log_likelihood

NUM_HIDDEN, NUM_VISIBLE = BLOCK**2, (BLOCK + 2 * MARGIN) ** 2
LATENT_SIZE, WIDTH, RATE = 32, 384, 2e-3


class Network(nnx.Module):
    """Two hidden layers, from all its inputs side by side."""

    def __init__(self, num_inputs: int, num_outputs: int, rngs: nnx.Rngs) -> None:
        sizes = (num_inputs, WIDTH, WIDTH, num_outputs)
        self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in itertools.pairwise(sizes)])

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        *hidden, last = self.layers
        x = jnp.concatenate(inputs)
        for layer in hidden:
            x = nnx.relu(layer(x))
        return last(x)


class Blind(Network):
    """A decoder that ignores z."""

    def __call__(self, z: jax.Array, condition: jax.Array) -> jax.Array:
        return super().__call__(jnp.zeros_like(z), condition)


def make_model(family: str, seed: int) -> CVAE:
    """The model with its initial parameters."""
    rngs = nnx.Rngs(seed)
    encoder = Network(NUM_HIDDEN + NUM_VISIBLE, 2 * LATENT_SIZE, rngs)
    make_decoder = Blind if family == "no latent variables" else Network
    decoder = make_decoder(LATENT_SIZE + NUM_VISIBLE, NUM_HIDDEN, rngs)
    prior = Network(NUM_VISIBLE, 2 * LATENT_SIZE, rngs) if family == "learned prior" else "standard"
    return CVAE(encoder, decoder, LATENT_SIZE, prior=prior)


def train(family: str, epochs: Any, seed: int, progress: bool) -> CVAE:
    """Adam with a cosine schedule on the ELBO of minibatches."""
    model = make_model(family, seed)
    num_data = len(epochs.images)
    rate = optax.cosine_decay_schedule(RATE, epochs.count * epochs.num_steps)
    svi = SVI(model.model, model.guide, optax_to_numpyro(optax.adam(rate)), Trace_ELBO())

    @jax.jit
    def run(state: Any, minibatches: Any, kl_weight: Any) -> Any:
        update = lambda state, batch: svi.update(state, *batch, size=num_data, kl_weight=kl_weight)
        return lax.scan(update, state, minibatches)

    hidden, surroundings = epochs.minibatches(0)
    state = svi.init(random.key(seed), hidden[0], surroundings[0], size=num_data)
    with trange(epochs.count, disable=not progress, desc=family, unit="epoch") as bar:
        for epoch in bar:
            state, losses = run(state, tuple(epochs.minibatches(epoch)), epochs.kl_weight(epoch))
            bar.set_postfix({"objective": f"{-losses.mean() / num_data:.2f}"})
    return model.with_parameters(svi.get_params(state))


def log_likelihood(
    model: CVAE, hidden: np.ndarray, surroundings: np.ndarray, num_samples: int, seed: int
) -> np.ndarray:
    """Importance-weighted estimates of log p(x | c), one for each block."""
    data, key = (hidden, surroundings), random.key(seed)
    return np.asarray(importance_weighted_log_likelihood(model, data, num_samples, batch_size=10, rng_key=key))


def complete(model: CVAE, surroundings: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Means of p(x | z, c) at z drawn from the prior, shape (count, blocks, pixels)."""
    drawn = Predictive(model.model, num_samples=count)(random.key(seed), None, surroundings)
    return np.asarray(model.decode(drawn["z"], surroundings).mean)
