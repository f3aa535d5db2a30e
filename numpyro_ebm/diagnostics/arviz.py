"""Export to ArviZ, in the call style of whichever version is installed."""

from collections.abc import Mapping
from typing import Any

from numpyro.infer import MCMC

from _ppl_ebm.arviz import Variables, check_source, inference_data, statistics


def to_arviz(
    mcmc: MCMC | None = None,
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
    >>> idata = to_arviz(posterior={"v": run_chain(jax.random.key(0), rbm, 50, num_chains=2)})
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
    return inference_data(groups, observed_data, coords, dims)


def _from_mcmc(mcmc: MCMC) -> tuple[Variables, Variables]:
    """Samples and sample statistics."""
    if not isinstance(mcmc, MCMC) or mcmc.last_state is None:
        raise ValueError(f"mcmc: to_arviz expected a numpyro.infer.MCMC that has run, got {mcmc!r}")
    return mcmc.get_samples(group_by_chain=True), statistics(mcmc.get_extra_fields(group_by_chain=True))
