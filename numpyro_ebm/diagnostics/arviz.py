"""Export to ArviZ, in the call style of whichever version is installed."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

_STAT_NAMES = {
    "accept_prob": "acceptance_rate",
    "diverging": "diverging",
    "energy": "energy",
    "num_steps": "n_steps",
    "potential_energy": "lp",
}


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

    :param mcmc: a :class:`numpyro.infer.MCMC` that has run; its samples become the posterior, its extra fields
        (``diverging`` and any of ``potential_energy``, ``accept_prob``, ``num_steps``, ``energy`` that the run
        collected) the sample statistics.
    :param posterior: instead of ``mcmc``: arrays of shape ``(chain, draw, ...)``, for example from ``run_chain``.
    :param posterior_predictive: arrays of shape ``(chain, draw, ...)``.
    :param prior: arrays of shape ``(chain, draw, ...)``.
    :param observed_data: arrays without chain and draw dimensions.
    :param sample_stats: arrays of shape ``(chain, draw)``, added to those of ``mcmc``.
    :param coords: coordinate values by dimension name, passed on to ArviZ.
    :param dims: dimension names by variable, passed on to ArviZ.
    :raises ValueError: unless exactly one of ``mcmc`` and ``posterior`` is given, for an ``mcmc`` that has not run, or
        for arrays without the two leading dimensions.
    :raises ImportError: if ArviZ is not installed.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> from numpyro_ebm.diagnostics import to_arviz
    >>> from numpyro_ebm.infer import run_chain
    >>> rbm = GaussianBernoulliRBM(jnp.array([[1.0], [-1.0]]))
    >>> idata = to_arviz(posterior={"v": run_chain(rbm, jax.random.key(0), 50, num_chains=2)})
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
        arrays["observed_data"] = {name: np.asarray(value) for name, value in observed_data.items()}
    return _from_dict(arrays, coords, dims)


def _from_mcmc(mcmc: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        samples = mcmc.get_samples(group_by_chain=True)
        fields = mcmc.get_extra_fields(group_by_chain=True)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"mcmc: expected a numpyro.infer.MCMC that has run, got {mcmc!r}") from error
    stats = {_STAT_NAMES[name]: np.asarray(value) for name, value in fields.items() if name in _STAT_NAMES}
    if "lp" in stats:
        stats["lp"] = -stats["lp"]
    return samples, stats


def _chain_draw(group: str, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(value) for name, value in values.items()}
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
