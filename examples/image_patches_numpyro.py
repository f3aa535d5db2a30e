"""The NumPyro half of ``image_patches.py``: learning and sampling. Arrays go in and out.

``image_patches_pyro.py`` is the same file for Pyro.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from tqdm.auto import tqdm

from numpyro_ebm import MeanCovarianceRBM, MeanProductOfStudentT
from numpyro_ebm.infer import Hamiltonian, run_chain
from numpyro_ebm.objectives import PersistentContrastiveDivergence, ScoreMatching

Model = MeanProductOfStudentT | MeanCovarianceRBM

BATCH_SIZE, CHUNK = 128, 50
RATE, CONTRASTIVE_RATE = 1e-2, 3e-3


def make_model(family: str, parameters: dict[str, Any], pooling: Any) -> Model:
    """The distribution of whitened patches; ``units`` are log-concentrations or biases of the covariance units."""
    filters, weights = parameters["filters"], parameters["weights"]
    units, hidden_bias = parameters["units"], parameters["hidden_bias"]
    if family == "mPoT":
        return MeanProductOfStudentT(
            filters, weights, concentration=jnp.exp(units), pooling=pooling, hidden_bias=hidden_bias
        )
    return MeanCovarianceRBM(filters, weights, pooling=-pooling, covariance_bias=units, hidden_bias=hidden_bias)


# -------------------------------------------------------------------------------------------- learning


def train(
    family: str,
    values: np.ndarray,
    parameters: dict[str, np.ndarray],
    pooling: np.ndarray,
    *,
    noise: float,
    num_matching: int,
    num_contrastive: int,
    seed: int,
    progress: bool,
) -> Model:
    """Score matching, then persistent contrastive divergence whose chains start from noise."""
    values, pooling = jnp.asarray(values), jnp.asarray(pooling)
    model = partial(make_model, family, pooling=pooling)

    def matching(parameters: Any, chains: Any, batch: Any, key: Any) -> tuple[Any, Any]:
        criterion = ScoreMatching(model(parameters), estimator="hutchinson", rng_key=key)
        return -criterion.log_prob(batch).mean(), chains

    def contrastive(parameters: Any, chains: Any, batch: Any, key: Any) -> tuple[Any, Any]:
        criterion = PersistentContrastiveDivergence(model(parameters), chains, rng_key=key)
        return -criterion.log_prob(batch).mean(), criterion.negative

    key_matching, key_chains, key_contrastive = random.split(random.key(seed), 3)
    bar = tqdm(total=num_matching + num_contrastive, disable=not progress, desc=family, unit="update")
    chains = random.normal(key_chains, (BATCH_SIZE, values.shape[1]))
    state = jax.tree.map(jnp.asarray, parameters), chains
    with bar:
        state = descend(matching, state, values, noise, RATE, num_matching, key_matching, bar)
        state = descend(contrastive, state, values, noise, CONTRASTIVE_RATE, num_contrastive, key_contrastive, bar)
    return model(state[0])


def descend(
    loss: Callable[..., Any], state: Any, values: Any, noise: float, rate: float, num_steps: int, key: Any, bar: Any
) -> Any:
    """Adam with a cosine schedule on ``loss(parameters, chains, batch, key)``, which returns the chains it advanced."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, num_steps))

    def step(carry: Any, key: Any) -> tuple[Any, None]:
        parameters, chains, moments = carry
        key_index, key_noise, key_loss = random.split(key, 3)
        batch = values[random.randint(key_index, (BATCH_SIZE,), 0, len(values))]
        batch = batch + noise * random.normal(key_noise, batch.shape)
        gradient, chains = jax.grad(loss, has_aux=True)(parameters, chains, batch, key_loss)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(parameters, updates), chains, moments), None

    run = jax.jit(lambda carry, keys: lax.scan(step, carry, keys)[0])
    carry = (*state, optimizer.init(state[0]))
    keys = random.split(key, num_steps)
    for start in range(0, num_steps, CHUNK):
        carry = jax.block_until_ready(run(carry, keys[start : start + CHUNK]))
        bar.update(len(keys[start : start + CHUNK]))
    return carry[:2]


# -------------------------------------------------------------------------------------------- judging


def objective(model: Model, values: np.ndarray) -> float:
    """The exact score matching objective, mean over rows."""
    loss = jax.jit(lambda rows: -ScoreMatching(model).log_prob(rows).sum())
    return float(sum(loss(rows) for rows in np.split(values, range(500, len(values), 500)))) / len(values)


def gibbs(model: Model, *, seed: int, **sizes: int) -> np.ndarray:
    """Draws by Gibbs sampling from noise, shape (chains, draws, components)."""
    return np.asarray(run_chain(random.key(seed), model, **sizes))


def hamiltonian(model: Model, start: np.ndarray, *, seed: int, **sizes: int) -> np.ndarray:
    """Draws by Hamiltonian Monte Carlo from given points, shape (chains, draws, components)."""
    return np.asarray(run_chain(random.key(seed), model, initial=start, sampler=Hamiltonian(num_leapfrog=20), **sizes))
