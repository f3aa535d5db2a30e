"""Distributions whose density is known up to a constant, and which know how much they know."""

from numpyro_ebm.distributions.activations import Activation
from numpyro_ebm.distributions.autoencoder import (
    CovarianceAutoencoder,
    GatedAutoencoder,
    MeanCovarianceAutoencoder,
    TiedAutoencoder,
)
from numpyro_ebm.distributions.binary import BinaryAutoencoder
from numpyro_ebm.distributions.covariance import CovarianceRBM, MeanCovarianceRBM
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.distributions.gated import GatedRBM
from numpyro_ebm.distributions.markov import MarkovNetwork
from numpyro_ebm.distributions.network import CausalAutoencoder, GradientStepEnergy, LineIntegralEnergy
from numpyro_ebm.distributions.neural import NeuralEnergy
from numpyro_ebm.distributions.partition import ImproperDensityError, IntractablePartitionError
from numpyro_ebm.distributions.rbm import BernoulliRBM, GaussianBernoulliRBM, GaussianRBM
from numpyro_ebm.distributions.student import MeanProductOfStudentT, ProductOfStudentT

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
