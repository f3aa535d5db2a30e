"""Priors of a VAE beside each other: held-out log-likelihood of digits, in NumPyro.

    python benchmarks/priors.py [--quick]

14 x 14 MNIST digits, binarised anew in every epoch of training (4,500 digits) and once for the test (500). The same
networks, 8 latent variables, Adam, three seeds; only the prior differs. Log-likelihoods are importance-weighted with
1,000 samples, and means over the test digits. The table has the mean over seeds with its standard error, the mean
difference from the standard prior of the same seed with its standard error, and the terms of the ELBO.
"""

import argparse
import functools
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from jax import lax
from numpyro.infer import SVI, Trace_ELBO
from tqdm.auto import tqdm

from numpyro_ebm import GaussianBernoulliRBM, NeuralEnergy
from numpyro_ebm.infer import AnnealedImportanceSampling, Hamiltonian, log_partition_bounds
from numpyro_ebm.objectives import PersistentContrastiveDivergence
from numpyro_ebm.variational import (
    VAE,
    EnergyPrior,
    MixturePrior,
    VampPrior,
    active_units,
    elbo_decomposition,
    importance_weighted_log_likelihood,
)

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "examples"))

import itertools

import datasets

LATENT, HIDDEN, BATCH_SIZE, NUM_CHAINS = 8, 200, 100, 200
WARM_UP = 0.1  # part of the training in which the KL's weight rises to 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two epochs of one seed: does it run?")
    parser.add_argument("--epochs", type=int, default=200)
    options = parser.parse_args()
    num_epochs, seeds, num_samples = (2, 1, 10) if options.quick else (options.epochs, 3, 1000)
    digits = datasets.mnist14()
    test = jnp.asarray(datasets.binarised(digits.test))
    results: dict[str, list[list[float]]] = {name: [] for name in PRIORS}
    start = time.perf_counter()
    for name in PRIORS:
        for seed in range(seeds):
            vae = train(name, digits.train, num_epochs, seed)
            results[name].append(measure(vae, test, num_samples, seed))
    print_table(results, time.perf_counter() - start)


# ---------------------------------------------------------------------- priors


def mixture(key: jax.Array, images: jax.Array) -> MixturePrior:
    """50 components."""
    return MixturePrior(50, LATENT, rng_key=key)


def vamp(key: jax.Array, images: jax.Array) -> VampPrior:
    """50 pseudo-inputs, which start as grey digits."""
    inputs = jax.random.choice(key, images, (50,), replace=False)
    return VampPrior(jnp.clip(inputs, 0.02, 0.98), constraint=numpyro.distributions.constraints.unit_interval)


def machine(key: jax.Array, images: jax.Array) -> EnergyPrior:
    """A Gaussian-Bernoulli RBM of 10 hidden units: a mixture of 1,024 normal distributions, exactly normalised."""
    return EnergyPrior(GaussianBernoulliRBM(0.5 * jax.random.normal(key, (LATENT, 10))))


def potential(weights: Any, z: jax.Array) -> jax.Array:
    """A standard normal energy, tilted by a network."""
    hidden = z
    for matrix, bias in weights[:-1]:
        hidden = jax.nn.silu(hidden @ matrix + bias)
    return 0.5 * (z**2).sum() + hidden @ weights[-1]


def neural(key: jax.Array, images: jax.Array) -> EnergyPrior:
    """A network, learned by persistent contrastive divergence; log Z by annealing, for the measures only."""
    keys = jax.random.split(key, 5)
    sizes = (LATENT, 64, 64)
    weights = [
        (jax.random.normal(one, pair) / np.sqrt(pair[0]), jnp.zeros(pair[1]))
        for one, pair in zip(keys[:2], itertools.pairwise(sizes), strict=True)
    ]
    energy = NeuralEnergy(
        jax.tree_util.Partial(potential, [*weights, 0.01 * jax.random.normal(keys[2], (64,))]),
        (LATENT,),
        sampler=Hamiltonian(step_size=0.3, num_leapfrog=3),
        log_partition=AnnealedImportanceSampling(num_chains=1000, num_temperatures=1000, rng_key=keys[3]),
    )
    chains = jax.random.normal(keys[4], (NUM_CHAINS, LATENT))

    def criterion(base: Any) -> PersistentContrastiveDivergence:
        return PersistentContrastiveDivergence(
            base, numpyro.primitives.mutable("chains", {"value": chains}), num_steps=2
        )

    return EnergyPrior(energy, criterion=criterion)


PRIORS: dict[str, Any] = {
    "standard": lambda key, images: "standard",
    "mixture": mixture,
    "Vamp": vamp,
    "RBM, exact": machine,
    "network, PCD": neural,
}


# ---------------------------------------------------------------------- networks and training


def mlp(weights: Any, x: jax.Array) -> jax.Array:
    """Rectified hidden layers."""
    for matrix, bias in weights[:-1]:
        x = jax.nn.relu(x @ matrix + bias)
    return x @ weights[-1][0] + weights[-1][1]


def network(key: jax.Array, *sizes: int) -> Any:
    """A pytree that maps one vector to another."""
    keys = jax.random.split(key, len(sizes) - 1)
    weights = [
        (jax.random.normal(one, pair) * np.sqrt(2 / pair[0]), jnp.zeros(pair[1]))
        for one, pair in zip(keys, itertools.pairwise(sizes), strict=True)
    ]
    return jax.tree_util.Partial(mlp, weights)


def train(name: str, images: np.ndarray, num_epochs: int, seed: int) -> VAE:
    """Fit the networks and the prior under the ELBO; binary digits are drawn anew in every epoch."""
    key_encoder, key_decoder, key_prior, key_init, key = jax.random.split(jax.random.key(seed), 5)
    data = jnp.asarray(images)
    encoder = network(key_encoder, 196, HIDDEN, HIDDEN, 2 * LATENT)
    decoder = network(key_decoder, LATENT, HIDDEN, HIDDEN, 196)
    vae = VAE(encoder, decoder, LATENT, prior=PRIORS[name](key_prior, data))
    num_batches = len(data) // BATCH_SIZE
    schedule = optax.cosine_decay_schedule(2e-3, num_epochs * num_batches)
    svi = SVI(vae.model, vae.guide, optax.adam(schedule), Trace_ELBO())

    @jax.jit
    def epoch(state: Any, key: jax.Array, weight: jax.Array) -> tuple[Any, jax.Array]:
        key_order, key_pixels = jax.random.split(key)
        binary = jax.random.bernoulli(key_pixels, jax.random.permutation(key_order, data)).astype(data.dtype)
        batches = binary.reshape(num_batches, BATCH_SIZE, -1)
        update = functools.partial(svi.update, size=len(data), kl_weight=weight)
        return lax.scan(lambda carry, x: update(carry, x), state, batches)

    state = svi.init(key_init, jnp.round(data[:BATCH_SIZE]), size=len(data), kl_weight=jnp.ones(()))
    bar = tqdm(range(num_epochs), desc=f"{name}, seed {seed}", leave=False)
    for index in bar:
        weight = min(1.0, (index + 1) / (WARM_UP * num_epochs))
        state, losses = epoch(state, jax.random.fold_in(key, index), jnp.asarray(weight))
        bar.set_postfix_str(f"loss {losses.mean() / len(data):.2f}", refresh=False)
    return vae.with_parameters(svi.get_params(state))


# ---------------------------------------------------------------------- measures


def measure(vae: VAE, test: jax.Array, num_samples: int, seed: int) -> list[float]:
    """Log-likelihood, ELBO and its terms, active units; for the network, how well its normaliser is known."""
    key_likelihood, key_terms = jax.random.split(jax.random.key(100 + seed))
    estimates = importance_weighted_log_likelihood(vae, test, num_samples, rng_key=key_likelihood)
    terms = elbo_decomposition(vae, test, 10, rng_key=key_terms)
    if isinstance(vae.prior, EnergyPrior) and vae.prior.criterion is not None:
        bounds = log_partition_bounds(key_terms, vae.prior.distribution())
        print(f"log Z of the network prior between {bounds.lower:.3f} and {bounds.upper:.3f}", flush=True)
    return [float(estimates.mean()), *map(float, terms), float(active_units(vae, test).sum())]


def print_table(results: dict[str, list[list[float]]], seconds: float) -> None:
    """One row for each prior."""
    names = ("log p(x)", "error", "gain", "error", "ELBO", "reconstr.", "inform.", "KL(q|p)", "active")
    print(f"{'prior':14}" + "".join(f"{name:>11}" for name in names))
    base = np.array(results["standard"])[:, 0]
    for prior, rows in results.items():
        table = np.array(rows)
        found, gain = table[:, 0], table[:, 0] - base
        cells = [found.mean(), error_of(found), gain.mean(), error_of(gain), *table[:, 1:].mean(0)]
        print(f"{prior:14}" + "".join(f"{cell:11.2f}" for cell in cells))
    print(f"{seconds:.0f} s")


def error_of(values: np.ndarray) -> float:
    """Standard error of the mean over seeds; none for a single one."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


if __name__ == "__main__":
    main()
