"""Distributions whose density is known up to a constant, and which know how much they know."""

from pyro_ebm.distributions.covariance import CovarianceRBM, MeanCovarianceRBM
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.gated import GatedRBM
from pyro_ebm.distributions.neural import NeuralEnergy
from pyro_ebm.distributions.partition import ImproperDensityError, IntractablePartitionError
from pyro_ebm.distributions.rbm import BernoulliRBM, GaussianBernoulliRBM, GaussianRBM
from pyro_ebm.distributions.student import MeanProductOfStudentT, ProductOfStudentT

__all__ = [
    "BernoulliRBM",
    "CovarianceRBM",
    "EnergyDistribution",
    "GatedRBM",
    "GaussianBernoulliRBM",
    "GaussianRBM",
    "ImproperDensityError",
    "IntractablePartitionError",
    "MeanCovarianceRBM",
    "MeanProductOfStudentT",
    "NeuralEnergy",
    "ProductOfStudentT",
]
