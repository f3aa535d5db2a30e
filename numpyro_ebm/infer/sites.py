"""The energy distributions among the sites of a model."""

from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution

from numpyro_ebm.distributions.energy import EnergyDistribution

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
