"""The energy distributions among the sites of a model."""

from collections.abc import Callable

import numpy as np
from jax import lax
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution
from numpyro.primitives import Messenger
from numpyro.util import not_jax_tracer

from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.sampling.types import Model, Site

_WRAPPERS = (Independent, ExpandedDistribution, MaskedDistribution)


def energy_distribution(distribution: Distribution) -> EnergyDistribution | None:
    """The energy distribution inside ``to_event``, ``expand`` and ``mask``, if there is one.

    :param distribution: of a sample site.
    """
    while isinstance(distribution, _WRAPPERS):
        distribution = distribution.base_dist
    return distribution if isinstance(distribution, EnergyDistribution) else None


def is_masked(distribution: Distribution) -> bool:
    """Whether ``mask`` has been applied to a distribution.

    :param distribution: of a sample site.
    """
    while isinstance(distribution, _WRAPPERS):
        if isinstance(distribution, MaskedDistribution):
            return True
        distribution = distribution.base_dist
    return False


def is_reweighted(site: Site) -> bool:
    """Whether a site is masked, or scaled by anything but 1.

    :param site: of a trace.
    """
    scale = site["scale"]
    is_plain = scale is None or (not_jax_tracer(scale) and bool(np.all(np.asarray(scale) == 1)))
    return is_masked(site["fn"]) or not is_plain


class Unnormalized(Messenger):
    """Detaches energy distributions and leaves their normalisers out, whatever ``log_partition`` is, without a guard.

    :param model: a NumPyro model.
    :param chosen: says of which sites, by their messages; masked distributions are left as they are.
    """

    def __init__(self, model: Model, chosen: Callable[[Site], bool]) -> None:
        super().__init__(model)
        self._chosen = chosen

    def process_message(self, msg: Site) -> None:
        distribution = None if msg["type"] != "sample" or is_masked(msg["fn"]) else energy_distribution(msg["fn"])
        if distribution is None or not self._chosen(msg):
            return
        bare = lax.stop_gradient(distribution).with_log_partition(None, independent=True)
        depth = msg["fn"].event_dim - distribution.event_dim
        msg["fn"] = bare.to_event(depth) if depth else bare
