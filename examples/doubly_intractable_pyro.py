"""The Pyro half of ``doubly_intractable.py``. Arrays go in and out; ``doubly_intractable_numpyro.py`` is the same."""

from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from doubly_intractable import HIDDEN_BIAS, PRIOR_SCALE
from pyro_ebm import GaussianBernoulliRBM, IntractablePartitionError
from pyro_ebm.infer import NUTS, BatchedMCMC, Exchange

torch.set_num_threads(1)


def machine(weight: torch.Tensor, log_partition: Any = "auto") -> GaussianBernoulliRBM:
    """One visible and one hidden unit."""
    return GaussianBernoulliRBM(weight[..., None, None], hidden_bias=HIDDEN_BIAS, log_partition=log_partition)


def model(data: torch.Tensor, log_partition: Any = "auto") -> None:
    """The weight, and what was observed."""
    weight = pyro.sample("weight", dist.Normal(0.0, PRIOR_SCALE))
    with pyro.plate("data", len(data)):
        pyro.sample("v", machine(weight, log_partition), obs=data)


def model_without_normaliser(data: torch.Tensor) -> None:
    """What not to write."""
    weight = pyro.sample("weight", dist.Normal(0.0, PRIOR_SCALE))
    with pyro.plate("data", len(data)):
        pyro.factor("v", -machine(weight).energy(data))


def run(
    kernel: Any, data: np.ndarray, *, num_chains: int, num_warmup: int, num_samples: int, seed: int, progress: bool
) -> np.ndarray:
    """Draws of the weight, shape (chains, draws)."""
    pyro.set_rng_seed(seed)
    mcmc = BatchedMCMC(kernel, num_samples, num_warmup, num_chains, disable_progbar=not progress)
    mcmc.run(torch.as_tensor(data, dtype=torch.get_default_dtype()))
    return mcmc.get_samples(group_by_chain=True)["weight"].numpy()


def refusal(data: np.ndarray) -> str:
    """How NUTS over the weight is refused where the normaliser is not known."""
    try:
        kernel = NUTS(partial(model, log_partition=None))
        run(kernel, data, num_chains=1, num_warmup=1, num_samples=1, seed=0, progress=False)
    except IntractablePartitionError as error:
        return f"{type(error).__name__}: {str(error)[:88]}..."
    raise AssertionError("the guard did not raise")


SAMPLERS = {
    "exchange": partial(run, Exchange(partial(model, log_partition=None))),
    "NUTS, exact normaliser": partial(run, NUTS(model)),
    "NUTS, factor(-energy): wrong": partial(run, NUTS(model_without_normaliser)),
}
