"""Distributions whose density is known up to a constant, and which know how much they know."""

from pyro_ebm.distributions.activations import Activation
from pyro_ebm.distributions.autoencoder import (
    CovarianceAutoencoder,
    GatedAutoencoder,
    MeanCovarianceAutoencoder,
    TiedAutoencoder,
)
from pyro_ebm.distributions.binary import BinaryAutoencoder
from pyro_ebm.distributions.covariance import CovarianceRBM, MeanCovarianceRBM
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.gated import GatedRBM
from pyro_ebm.distributions.markov import MarkovNetwork
from pyro_ebm.distributions.network import CausalAutoencoder, GradientStepEnergy, LineIntegralEnergy
from pyro_ebm.distributions.neural import NeuralEnergy
from pyro_ebm.distributions.partition import ImproperDensityError, IntractablePartitionError
from pyro_ebm.distributions.rbm import BernoulliRBM, GaussianBernoulliRBM, GaussianRBM
from pyro_ebm.distributions.student import MeanProductOfStudentT, ProductOfStudentT

__all__ = [
    "Activation",
    "BernoulliRBM",
    "BinaryAutoencoder",
    "CausalAutoencoder",
    "CovarianceAutoencoder",
    "CovarianceRBM",
    "EnergyDistribution",
    "GatedAutoencoder",
    "GatedRBM",
    "GaussianBernoulliRBM",
    "GaussianRBM",
    "GradientStepEnergy",
    "ImproperDensityError",
    "IntractablePartitionError",
    "LineIntegralEnergy",
    "MarkovNetwork",
    "MeanCovarianceAutoencoder",
    "MeanCovarianceRBM",
    "MeanProductOfStudentT",
    "NeuralEnergy",
    "ProductOfStudentT",
    "TiedAutoencoder",
]
