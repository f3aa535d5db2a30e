"""Distributions whose density is known up to a constant, and which know how much they know."""

from _ppl_ebm.errors import ImproperDensityError, IntractablePartitionError
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.distributions.families.bernoulli_rbm import BernoulliRBM
from numpyro_ebm.distributions.families.binary_autoencoder import BinaryAutoencoder
from numpyro_ebm.distributions.families.causal_autoencoder import CausalAutoencoder
from numpyro_ebm.distributions.families.covariance_autoencoder import CovarianceAutoencoder
from numpyro_ebm.distributions.families.covariance_rbm import CovarianceRBM
from numpyro_ebm.distributions.families.gated_autoencoder import GatedAutoencoder
from numpyro_ebm.distributions.families.gated_rbm import GatedRBM
from numpyro_ebm.distributions.families.gaussian_bernoulli_rbm import GaussianBernoulliRBM
from numpyro_ebm.distributions.families.gaussian_rbm import GaussianRBM
from numpyro_ebm.distributions.families.gradient_step_energy import GradientStepEnergy
from numpyro_ebm.distributions.families.line_integral_energy import LineIntegralEnergy
from numpyro_ebm.distributions.families.markov_network import MarkovNetwork
from numpyro_ebm.distributions.families.mean_covariance_autoencoder import MeanCovarianceAutoencoder
from numpyro_ebm.distributions.families.mean_covariance_rbm import MeanCovarianceRBM
from numpyro_ebm.distributions.families.mean_product_of_student_t import MeanProductOfStudentT
from numpyro_ebm.distributions.families.neural_energy import NeuralEnergy
from numpyro_ebm.distributions.families.product_of_student_t import ProductOfStudentT
from numpyro_ebm.distributions.families.tied_autoencoder import TiedAutoencoder
from numpyro_ebm.distributions.parts.activations import Activation

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
