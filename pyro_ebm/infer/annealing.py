"""Annealed importance sampling: a partition function as an estimate, with the gradient that belongs to it."""

import dataclasses
import math
from typing import Any

import torch

from pyro_ebm.infer.samplers import check_positive_int


@dataclasses.dataclass(frozen=True)
class AnnealedImportanceSampling:
    """Estimator of log Z along the family's path from independent visible units (Neal 2001; Salakhutdinov 2008).

    Give it as ``log_partition=`` to a distribution: ``log_prob`` is then normalised by the estimate, and differentiable
    everywhere, with ``-E_model[grad F]`` taken over the same weighted samples. ``exp`` of the estimate is unbiased for
    Z, so the estimate itself is a lower bound on log Z in expectation, and ``log_prob`` an upper bound. Every use of
    ``log_partition`` or ``log_prob`` runs new chains from torch's global generator.

    :param num_chains: independent annealed chains.
    :param num_temperatures: inverse temperatures, equally spaced from 0 to 1, one Gibbs sweep at each.
    :raises ValueError: for numbers that are not positive integers.

    >>> import pyro, torch
    >>> from pyro_ebm import BernoulliRBM
    >>> from pyro_ebm.infer import AnnealedImportanceSampling
    >>> pyro.set_rng_seed(0)
    >>> weights = torch.tensor([[1.0, -0.5], [0.3, 2.0]])
    >>> estimated = BernoulliRBM(weights, log_partition=AnnealedImportanceSampling())
    >>> bool(abs(estimated.log_partition - BernoulliRBM(weights).log_partition) < 0.05)
    True
    """

    num_chains: int = 100
    num_temperatures: int = 1000

    def __post_init__(self) -> None:
        check_positive_int("num_chains", self.num_chains)
        check_positive_int("num_temperatures", self.num_temperatures)

    def check(self, distribution: Any) -> None:
        if not (hasattr(distribution, "annealed") and distribution.has_gibbs_step):
            raise TypeError(
                f"log_partition: AnnealedImportanceSampling needs a family with a path to independent units and Gibbs "
                f"sampling along it, and {type(distribution).__name__} has none"
            )

    @torch.no_grad()
    def weighted_samples(self, distribution: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Estimate of log Z, the chains' final samples and their normalised weights."""
        log_weights, samples = _anneal(distribution._frozen(), self.num_chains, self.num_temperatures)
        total = torch.logsumexp(log_weights, 0)
        weights = torch.exp(log_weights - total)
        return distribution.base_log_partition + total - math.log(self.num_chains), samples, weights


def _anneal(distribution: Any, num_chains: int, num_temperatures: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log importance weights and final positions of ``num_chains`` annealed chains."""
    position = distribution._initial((num_chains, *distribution.batch_shape))
    log_weights = torch.zeros(position.shape[:-1], dtype=position.dtype, device=position.device)
    previous = distribution.annealed(0.0)
    for step in range(1, num_temperatures + 1):
        colder = distribution.annealed(step / num_temperatures)
        log_weights = log_weights + previous.energy(position) - colder.energy(position)
        position = colder.gibbs_step(position)
        previous = colder
    return log_weights, position
