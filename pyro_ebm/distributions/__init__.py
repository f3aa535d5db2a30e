"""Distributions whose density is known up to a constant, and which know how much they know."""

from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.neural import NeuralEnergy
from pyro_ebm.distributions.partition import ImproperDensityError, IntractablePartitionError
from pyro_ebm.distributions.rbm import BernoulliRBM, GaussianBernoulliRBM, GaussianRBM

__all__ = [
    "BernoulliRBM",
    "EnergyDistribution",
    "GaussianBernoulliRBM",
    "GaussianRBM",
    "ImproperDensityError",
    "IntractablePartitionError",
    "NeuralEnergy",
]
