"""Export to ArviZ, in the call style of whichever version is installed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pyro.infer import MCMC

from _ppl_ebm.arviz import Variables, check_source, inference_data, statistics
from pyro_ebm.diagnostics.fields import to_numpy
from pyro_ebm.infer.mcmc import BatchedMCMC

_MIN_DRAWS = 4  # of which Pyro computes diagnostics


def to_arviz(
    mcmc: MCMC | BatchedMCMC | None = None,
    *,
    posterior: Variables | None = None,
    posterior_predictive: Variables | None = None,
    prior: Variables | None = None,
    observed_data: Variables | None = None,
    sample_stats: Variables | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
) -> Any:
    """Inference data for ArviZ 0.x (``InferenceData``) or 1.x (``DataTree``); read ``idata["posterior"]["v"]`` in both.

    :param mcmc: a :class:`pyro_ebm.infer.BatchedMCMC` or :class:`pyro.infer.MCMC` that has run; its samples become the
        posterior, and what it reports the sample statistics: ``diverging``, ``acceptance_rate`` and, of the former,
        ``lp``. Of acceptance rates Pyro's own only keeps each chain's mean, and it reports nothing of runs of fewer
        than four draws or of integers.
    :param posterior: instead of ``mcmc``: tensors or arrays of shape ``(chain, draw, ...)``, for example from
        ``run_chain``.
    :param posterior_predictive: arrays of shape ``(chain, draw, ...)``.
    :param prior: arrays of shape ``(chain, draw, ...)``.
    :param observed_data: arrays without chain and draw dimensions.
    :param sample_stats: arrays of shape ``(chain, draw)``, added to those of ``mcmc``.
    :param coords: coordinate values by dimension name, passed on to ArviZ.
    :param dims: dimension names by variable, passed on to ArviZ.
    :raises ValueError: unless exactly one of ``mcmc`` and ``posterior`` is given, for an ``mcmc`` that has not run, or
        for arrays without the two leading dimensions.
    :raises ImportError: if ArviZ is not installed.

    >>> import torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.diagnostics import to_arviz
    >>> from pyro_ebm.infer import run_chain
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[1.0], [-1.0]]))
    >>> idata = to_arviz(posterior={"v": run_chain(rbm, 50, num_chains=2)})
    >>> idata["posterior"]["v"].shape
    (2, 50, 2)
    """
    check_source(mcmc, posterior)
    stats: Variables = {}
    if mcmc is not None:
        posterior, stats = _from_mcmc(mcmc)
    groups = {
        "posterior": posterior,
        "posterior_predictive": posterior_predictive,
        "prior": prior,
        "sample_stats": {**stats, **(sample_stats or {})},
    }
    return inference_data(groups, observed_data, coords, dims, to_numpy=to_numpy)


def _from_mcmc(mcmc: MCMC | BatchedMCMC) -> tuple[Variables, Variables]:
    """Samples and sample statistics."""
    samples = mcmc.get_samples(group_by_chain=True) if isinstance(mcmc, (MCMC, BatchedMCMC)) else {}
    if not samples:
        raise ValueError(f"mcmc: to_arviz expected a BatchedMCMC or pyro.infer.MCMC that has run, got {mcmc!r}")
    if isinstance(mcmc, BatchedMCMC):
        return samples, statistics(mcmc.get_extra_fields())
    return samples, _host_statistics(mcmc, samples)


def _host_statistics(mcmc: MCMC, samples: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """``diverging`` and ``acceptance_rate`` by Pyro's own diagnostics."""
    shape = next(iter(samples.values())).shape[:2]
    if shape[1] < _MIN_DRAWS or not all(draws.is_floating_point() for draws in samples.values()):
        return {}
    diagnostics, stats = mcmc.diagnostics(), {}
    if "divergences" in diagnostics:
        stats["diverging"] = np.zeros(shape, bool)
        for row, divergences in zip(stats["diverging"], diagnostics["divergences"].values(), strict=True):
            row[divergences] = True
    if "acceptance rate" in diagnostics:
        rates = [[float(rate)] for rate in diagnostics["acceptance rate"].values()]
        stats["acceptance_rate"] = np.broadcast_to(rates, shape)
    return stats
