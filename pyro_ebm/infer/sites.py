"""The energy distributions among the sites of a model."""

from collections.abc import Callable

from pyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution
from pyro.poutine.messenger import Messenger

from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling.types import Site

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


class Unnormalized(Messenger):
    """Detaches energy distributions and leaves their normalisers out, whatever ``log_partition`` is, without a guard.

    :param chosen: says of which sites, by their messages; masked distributions are left as they are.
    """

    def __init__(self, chosen: Callable[[Site], bool]) -> None:
        super().__init__()
        self._chosen = chosen

    def _pyro_sample(self, msg: Site) -> None:
        distribution = None if is_masked(msg["fn"]) else energy_distribution(msg["fn"])
        if distribution is None or not self._chosen(msg):
            return
        bare = distribution.frozen().with_log_partition(None, independent=True)
        depth = msg["fn"].event_dim - distribution.event_dim
        msg["fn"] = bare.to_event(depth) if depth else bare
