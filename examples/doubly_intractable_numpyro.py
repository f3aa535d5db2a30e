"""The NumPyro half of ``doubly_intractable.py``. Arrays go in and out; ``doubly_intractable_pyro.py`` is the same."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from doubly_intractable import HIDDEN_BIAS, PRIOR_SCALE
from numpyro_ebm import GaussianBernoulliRBM, IntractablePartitionError
from numpyro_ebm.infer import Exchange


def machine(weight: Any, log_partition: Any = "auto") -> GaussianBernoulliRBM:
    """One visible and one hidden unit."""
    return GaussianBernoulliRBM(jnp.reshape(weight, (1, 1)), hidden_bias=HIDDEN_BIAS, log_partition=log_partition)


def model(data: Any, log_partition: Any = "auto") -> None:
    """The weight, and what was observed."""
    weight = numpyro.sample("weight", dist.Normal(0.0, PRIOR_SCALE))
    with numpyro.plate("data", len(data)):
        numpyro.sample("v", machine(weight, log_partition), obs=data)


def model_without_normaliser(data: Any) -> None:
    """What not to write."""
    weight = numpyro.sample("weight", dist.Normal(0.0, PRIOR_SCALE))
    numpyro.factor("v", -machine(weight).energy(data).sum())


def run(
    kernel: Any, data: np.ndarray, *, num_chains: int, num_warmup: int, num_samples: int, seed: int, progress: bool
) -> np.ndarray:
    """Draws of the weight, shape (chains, draws)."""
    sizes = {"num_warmup": num_warmup, "num_samples": num_samples, "num_chains": num_chains}
    mcmc = MCMC(kernel, **sizes, chain_method="vectorized", progress_bar=progress)
    mcmc.run(jax.random.key(seed), jnp.asarray(data))
    return np.asarray(mcmc.get_samples(group_by_chain=True)["weight"])


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
