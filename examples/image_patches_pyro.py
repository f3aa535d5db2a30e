"""The Pyro half of ``image_patches.py``: learning and sampling. Arrays go in and out.

``image_patches_numpyro.py`` is the same file for NumPyro.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch
from tqdm.auto import tqdm

from pyro_ebm import MeanCovarianceRBM, MeanProductOfStudentT
from pyro_ebm.infer import Hamiltonian, run_chain
from pyro_ebm.objectives import PersistentContrastiveDivergence, ScoreMatching

Model = MeanProductOfStudentT | MeanCovarianceRBM

BATCH_SIZE = 128
RATE, CONTRASTIVE_RATE = 1e-2, 3e-3


def make_model(family: str, parameters: dict[str, Any], pooling: Any) -> Model:
    """The distribution of whitened patches; ``units`` are log-concentrations or biases of the covariance units."""
    filters, weights = parameters["filters"], parameters["weights"]
    units, hidden_bias = parameters["units"], parameters["hidden_bias"]
    if family == "mPoT":
        return MeanProductOfStudentT(
            filters, weights, concentration=units.exp(), pooling=pooling, hidden_bias=hidden_bias
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
    pyro.set_rng_seed(seed)
    values, pooling = torch.as_tensor(values), torch.as_tensor(pooling)
    model = partial(make_model, family, pooling=pooling)
    state = {name: torch.tensor(parameter, requires_grad=True) for name, parameter in parameters.items()}
    chains = torch.randn(BATCH_SIZE, values.shape[1])

    def matching(batch: torch.Tensor) -> torch.Tensor:
        return -ScoreMatching(model(state), estimator="hutchinson").log_prob(batch).mean()

    def contrastive(batch: torch.Tensor) -> torch.Tensor:
        return -PersistentContrastiveDivergence(model(state), chains).log_prob(batch).mean()

    with tqdm(total=num_matching + num_contrastive, disable=not progress, desc=family, unit="update") as bar:
        descend(matching, state, values, noise, RATE, num_matching, bar)
        descend(contrastive, state, values, noise, CONTRASTIVE_RATE, num_contrastive, bar)
    return model({name: parameter.detach() for name, parameter in state.items()})


def descend(
    loss: Callable[..., Any],
    state: dict[str, torch.Tensor],
    values: torch.Tensor,
    noise: float,
    rate: float,
    num_steps: int,
    bar: Any,
) -> None:
    """Adam with a cosine schedule on ``loss(batch)``, in place."""
    optimizer = torch.optim.Adam(state.values(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        batch = values[torch.randint(len(values), (BATCH_SIZE,))]
        optimizer.zero_grad()
        loss(batch + noise * torch.randn_like(batch)).backward()
        optimizer.step()
        scheduler.step()
        bar.update()


# -------------------------------------------------------------------------------------------- judging


def objective(model: Model, values: np.ndarray) -> float:
    """The exact score matching objective, mean over rows."""
    loss = lambda rows: -ScoreMatching(model).log_prob(torch.as_tensor(rows)).sum()
    return float(sum(loss(rows) for rows in np.split(values, range(500, len(values), 500)))) / len(values)


def gibbs(model: Model, *, seed: int, **sizes: int) -> np.ndarray:
    """Draws by Gibbs sampling from noise, shape (chains, draws, components)."""
    pyro.set_rng_seed(seed)
    return run_chain(model, **sizes).numpy()


def hamiltonian(model: Model, start: np.ndarray, *, seed: int, **sizes: int) -> np.ndarray:
    """Draws by Hamiltonian Monte Carlo from given points, shape (chains, draws, components)."""
    pyro.set_rng_seed(seed)
    return run_chain(model, initial=torch.as_tensor(start), sampler=Hamiltonian(num_leapfrog=20), **sizes).numpy()
