"""Training and sampling speed of the RBM family, rivals side by side in one run.

1. PCD-1 on scikit-learn's digits (binarised, 128 hidden units, batches of 64): milliseconds per epoch and the exact
   pseudo-likelihood reached, beside ``sklearn.neural_network.BernoulliRBM``.
2. Gibbs sweeps per second at 784 x 500 with 1,000 chains, beside the two bare matrix products in the same framework.

Run ``python benchmarks/rbm.py``; ``--quick`` only checks that it runs. ``--device cuda`` moves torch's half to an
accelerator; JAX takes one by itself where it is built for it.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pyro
import torch
from jax import lax
from numpyro.infer import SVI, Trace_ELBO
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM as SklearnRBM

import numpyro_ebm
import pyro_ebm

Contest = tuple[Callable[[], object], Callable[[], object]]

NUM_HIDDEN = 128
BATCH_SIZE = 64
LEARNING_RATE = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few epochs and sweeps: does it run?")
    parser.add_argument("--device", default="cpu", help="of torch's half: cpu or cuda")
    options = parser.parse_args()
    torch.set_default_device(options.device)
    print(f"torch on {options.device}, JAX on {jax.devices()[0]}")
    # Whole batches only: scikit-learn scales the gradient of a smaller last batch wrongly.
    digits = (load_digits().data > 7).astype(np.float32)[: 28 * BATCH_SIZE]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads only cost time on models this small
    print_training(digits, epochs=2 if options.quick else 60, repeats=1 if options.quick else 5)
    torch.set_num_threads(num_threads)
    print_sampling(num_sweeps=2 if options.quick else 20, repeats=2 if options.quick else 15)


# ---------------------------------------------------------------------- training


def print_training(digits: np.ndarray, epochs: int, repeats: int) -> None:
    """Train every rival ``repeats`` times, interleaved; report the median time and pseudo-likelihood."""
    rivals = {
        "scikit-learn": train_sklearn,
        "NumPyro, SVI": train_numpyro,
        "Pyro, torch.optim": train_pyro,
        "Pyro, SVI": train_pyro_svi,
    }
    for train in rivals.values():  # compile, and wake threads and allocators
        train(digits, 2, 0)
    times: dict[str, list[float]] = {name: [] for name in rivals}
    likelihoods: dict[str, list[float]] = {name: [] for name in rivals}
    for seed in range(repeats):
        for name, train in rivals.items():
            start = time.perf_counter()
            parameters = train(digits, epochs, seed)
            times[name].append(1e3 * (time.perf_counter() - start) / epochs)
            likelihoods[name].append(pseudo_likelihood(parameters, digits))
    print(f"PCD-1 on {len(digits)} digits, {NUM_HIDDEN} hidden units, batches of {BATCH_SIZE}, {epochs} epochs")
    print(f"{'':24s}{'ms/epoch':>10s}{'sklearn/this':>14s}{'pseudo-log-likelihood':>24s}")
    reference = statistics.median(times["scikit-learn"])
    for name in rivals:
        median = statistics.median(times[name])
        likelihood = statistics.median(likelihoods[name])
        print(f"{name:24s}{median:10.2f}{reference / median:14.2f}{likelihood:24.3f}")


def pseudo_likelihood(parameters: tuple[np.ndarray, ...], digits: np.ndarray) -> float:
    """Mean exact log pseudo-likelihood in nats."""
    weights, visible_bias, hidden_bias = (jnp.asarray(array, jnp.float32) for array in parameters)
    rbm = numpyro_ebm.BernoulliRBM(weights, visible_bias=visible_bias, hidden_bias=hidden_bias)
    return float(numpyro_ebm.objectives.PseudoLikelihood(rbm).log_prob(jnp.asarray(digits)).mean())


def initial_weights(num_visible: int, seed: int) -> np.ndarray:
    """Small random weights, as scikit-learn starts."""
    return np.random.default_rng(seed).normal(0, 0.01, (num_visible, NUM_HIDDEN)).astype(np.float32)


def train_sklearn(digits: np.ndarray, epochs: int, seed: int) -> tuple[np.ndarray, ...]:
    """The rival: PCD-1 with as many chains as rows in a batch, plain gradient steps."""
    model = SklearnRBM(NUM_HIDDEN, learning_rate=LEARNING_RATE, batch_size=BATCH_SIZE, n_iter=epochs, random_state=seed)
    model.fit(digits)
    return model.components_.T, model.intercept_visible_, model.intercept_hidden_


def numpyro_model(batch: jax.Array) -> None:
    """Maximise the mean of minus the PCD criterion over one batch."""
    num_visible = batch.shape[-1]
    rbm = numpyro_ebm.BernoulliRBM(
        numpyro.param("weights", lambda key: 0.01 * jax.random.normal(key, (num_visible, NUM_HIDDEN))),
        visible_bias=numpyro.param("visible_bias", jnp.zeros(num_visible)),
        hidden_bias=numpyro.param("hidden_bias", jnp.zeros(NUM_HIDDEN)),
    )
    chains = numpyro.primitives.mutable("chains", {"value": jnp.zeros((BATCH_SIZE, num_visible))})
    criterion = numpyro_ebm.objectives.PersistentContrastiveDivergence(rbm, chains)
    with numpyro.plate("batch", len(batch)), numpyro.handlers.scale(scale=1 / len(batch)):
        numpyro.sample("v", criterion, obs=batch)


def empty_guide(*args: object) -> None:
    """All parameters are learned by the model."""


_NUMPYRO_SVI = SVI(numpyro_model, empty_guide, optax.sgd(LEARNING_RATE), Trace_ELBO())


@functools.partial(jax.jit, donate_argnums=0)
def numpyro_epoch(state: object, digits: jax.Array, key: jax.Array) -> object:
    """One pass over the data in a new order, a single compiled program."""
    num_batches = len(digits) // BATCH_SIZE
    order = jax.random.permutation(key, len(digits))[: num_batches * BATCH_SIZE].reshape(num_batches, BATCH_SIZE)
    return lax.scan(lambda state, index: (_NUMPYRO_SVI.update(state, digits[index])[0], None), state, order)[0]


def train_numpyro(digits: np.ndarray, epochs: int, seed: int) -> tuple[np.ndarray, ...]:
    data = jnp.asarray(digits)
    state = _NUMPYRO_SVI.init(jax.random.key(seed), data[:BATCH_SIZE])
    for epoch in range(epochs):
        state = numpyro_epoch(state, data, jax.random.key(epoch))
    params = _NUMPYRO_SVI.get_params(state)
    return tuple(np.asarray(params[name]) for name in ("weights", "visible_bias", "hidden_bias"))


def torch_batches(digits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The batches of one epoch in a new order."""
    return digits[torch.randperm(len(digits), device=digits.device)].split(BATCH_SIZE)


def train_pyro(digits: np.ndarray, epochs: int, seed: int) -> tuple[np.ndarray, ...]:
    """The criterion's gradient in a plain training loop."""
    torch.manual_seed(seed)
    data = torch.tensor(digits)
    parameters = {
        "weights": torch.tensor(initial_weights(data.shape[1], seed)),
        "visible_bias": torch.zeros(data.shape[1]),
        "hidden_bias": torch.zeros(NUM_HIDDEN),
    }
    chains = torch.zeros(BATCH_SIZE, data.shape[1])
    optimizer = torch.optim.SGD(parameters.values(), lr=LEARNING_RATE)
    with pyro.validation_enabled(False):
        for _ in range(epochs):
            for batch in torch_batches(data):
                rbm = pyro_ebm.BernoulliRBM(**parameters)
                criterion = pyro_ebm.objectives.PersistentContrastiveDivergence(rbm, chains)
                for name, gradient in criterion.gradient(batch).items():
                    parameters[name].grad = gradient
                optimizer.step()
    return tuple(tensor.cpu().numpy() for tensor in parameters.values())


def train_pyro_svi(digits: np.ndarray, epochs: int, seed: int) -> tuple[np.ndarray, ...]:
    """The same inside Pyro's SVI, whose tracing costs more than the model."""
    torch.manual_seed(seed)
    pyro.clear_param_store()
    data = torch.tensor(digits)
    chains = torch.zeros(BATCH_SIZE, data.shape[1])
    start = torch.tensor(initial_weights(data.shape[1], seed))

    def model(batch: torch.Tensor) -> None:
        rbm = pyro_ebm.BernoulliRBM(
            pyro.param("weights", lambda: start),
            visible_bias=pyro.param("visible_bias", lambda: torch.zeros(data.shape[1])),
            hidden_bias=pyro.param("hidden_bias", lambda: torch.zeros(NUM_HIDDEN)),
        )
        criterion = pyro_ebm.objectives.PersistentContrastiveDivergence(rbm, chains)
        with pyro.plate("batch", len(batch)), pyro.poutine.scale(scale=1 / len(batch)):
            pyro.sample("v", criterion, obs=batch)

    with pyro.validation_enabled(False):
        svi = pyro.infer.SVI(model, empty_guide, pyro.optim.SGD({"lr": LEARNING_RATE}), pyro.infer.Trace_ELBO())
        for _ in range(epochs):
            for batch in torch_batches(data):
                svi.step(batch)
    return tuple(pyro.param(name).detach().cpu().numpy() for name in ("weights", "visible_bias", "hidden_bias"))


# ---------------------------------------------------------------------- sampling


def print_sampling(
    num_sweeps: int, repeats: int, visible: int = 784, hidden: int = 500, num_chains: int = 1000
) -> None:
    """Gibbs sweeps per second, and the share of the rate of the matrix products alone."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.05, (visible, hidden)).astype(np.float32)
    start = (rng.random((num_chains, visible)) < 0.5).astype(np.float32)
    print(f"\nGibbs sweeps at {visible} x {hidden}, {num_chains} chains, float32")
    print(f"{'':24s}{'sweeps/s':>10s}{'products/s':>14s}{'ratio':>24s}")
    for name, (sweeps, products) in {  # each returns when the device is done
        "NumPyro": jax_contest(weights, start, num_sweeps),
        "Pyro": torch_contest(weights, start, num_sweeps),
    }.items():
        pairs = [(timed(sweeps), timed(products)) for _ in range(repeats + 1)][1:]
        sweep = statistics.median(pair[0] for pair in pairs) / num_sweeps
        product = statistics.median(pair[1] for pair in pairs) / num_sweeps
        ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
        print(f"{name:24s}{1 / sweep:10.1f}{1 / product:14.1f}{ratio:24.2f}")


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def jax_contest(weights: np.ndarray, start: np.ndarray, num_sweeps: int) -> Contest:
    rbm, position = numpyro_ebm.BernoulliRBM(jnp.asarray(weights)), jnp.asarray(start)

    @jax.jit
    def products(weights: jax.Array, position: jax.Array) -> jax.Array:
        step = lambda v, _: (((v @ weights) * 1e-2) @ weights.T * 1e-2, None)
        return lax.scan(step, position, length=num_sweeps)[0]

    def sweep() -> jax.Array:
        draws = numpyro_ebm.infer.run_chain(
            jax.random.key(0), rbm, 1, thinning=num_sweeps, num_chains=len(start), initial=position
        )
        return draws.block_until_ready()

    return sweep, lambda: products(rbm.weights, position).block_until_ready()


def torch_contest(weights: np.ndarray, start: np.ndarray, num_sweeps: int) -> Contest:
    rbm, position = pyro_ebm.BernoulliRBM(torch.tensor(weights)), torch.tensor(start)

    def products() -> None:
        value = position
        for _ in range(num_sweeps):
            value = ((value @ rbm.weights) * 1e-2) @ rbm.weights.T * 1e-2
        value.sum().item()

    def sweep() -> None:
        draws = pyro_ebm.infer.run_chain(rbm, 1, thinning=num_sweeps, num_chains=len(start), initial=position)
        draws.sum().item()

    return sweep, products


if __name__ == "__main__":
    main()
