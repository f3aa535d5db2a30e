"""Export to ArviZ, in the call style of whichever version is installed."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def to_arviz(
    mcmc: Any = None,
    *,
    posterior: Mapping[str, Any] | None = None,
    posterior_predictive: Mapping[str, Any] | None = None,
    prior: Mapping[str, Any] | None = None,
    observed_data: Mapping[str, Any] | None = None,
    sample_stats: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
) -> Any:
    """Inference data for ArviZ 0.x (``InferenceData``) or 1.x (``DataTree``); read ``idata["posterior"]["v"]`` in both.

    :param mcmc: a :class:`pyro.infer.MCMC` that has run; its samples become the posterior, and what its kernel reports
        the sample statistics: ``diverging`` per draw, and ``acceptance_rate``, which Pyro only keeps as each chain's
        mean.
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
    if (mcmc is None) == (posterior is None):
        raise ValueError("mcmc, posterior: to_arviz expected exactly one of them")
    stats: dict[str, Any] = {}
    if mcmc is not None:
        posterior, stats = _from_mcmc(mcmc)
    groups = {
        "posterior": posterior,
        "posterior_predictive": posterior_predictive,
        "prior": prior,
        "sample_stats": {**stats, **(sample_stats or {})},
    }
    arrays = {group: _chain_draw(group, values) for group, values in groups.items() if values}
    if observed_data:
        arrays["observed_data"] = {name: _to_numpy(value) for name, value in observed_data.items()}
    return _from_dict(arrays, coords, dims)


def _from_mcmc(mcmc: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    samples = mcmc.get_samples(group_by_chain=True) if hasattr(mcmc, "get_samples") else None
    if not samples:
        raise ValueError(f"mcmc: expected a pyro.infer.MCMC that has run, got {mcmc!r}")
    # mcmc.diagnostics() also computes effective sample sizes, and so fails on fewer than four draws.
    chains = mcmc._diagnostics
    shape = next(iter(samples.values())).shape[:2]
    stats = {}
    if all("divergences" in chain for chain in chains):
        stats["diverging"] = np.zeros(shape, bool)
        for row, chain in zip(stats["diverging"], chains, strict=True):
            row[chain["divergences"]] = True
    if all("acceptance rate" in chain for chain in chains):
        rates = [[float(chain["acceptance rate"])] for chain in chains]
        stats["acceptance_rate"] = np.broadcast_to(rates, shape)
    return samples, stats


def _to_numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _chain_draw(group: str, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {name: _to_numpy(value) for name, value in values.items()}
    for name, array in arrays.items():
        if array.ndim < 2:
            raise ValueError(f"{group}: expected {name!r} of shape (chain, draw, ...), got {array.shape}")
    return arrays


def _from_dict(groups: dict[str, Any], coords: Any, dims: Any) -> Any:
    try:
        import arviz
    except ImportError as error:
        raise ImportError('to_arviz needs ArviZ; install it with: pip install "ppl-ebm[arviz]"') from error
    if "data" in inspect.signature(arviz.from_dict).parameters:  # ArviZ 1.x
        return arviz.from_dict(groups, coords=coords, dims=dims)
    return arviz.from_dict(**groups, coords=coords, dims=dims)
