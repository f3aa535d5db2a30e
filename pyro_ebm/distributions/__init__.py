"""Distributions whose density is known up to a constant, and which know how much they know."""

from _ppl_ebm.errors import ImproperDensityError, IntractablePartitionError
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.families.bernoulli_rbm import BernoulliRBM
from pyro_ebm.distributions.families.binary_autoencoder import BinaryAutoencoder
from pyro_ebm.distributions.families.causal_autoencoder import CausalAutoencoder
from pyro_ebm.distributions.families.covariance_autoencoder import CovarianceAutoencoder
from pyro_ebm.distributions.families.covariance_rbm import CovarianceRBM
from pyro_ebm.distributions.families.gated_autoencoder import GatedAutoencoder
from pyro_ebm.distributions.families.gated_rbm import GatedRBM
from pyro_ebm.distributions.families.gaussian_bernoulli_rbm import GaussianBernoulliRBM
from pyro_ebm.distributions.families.gaussian_rbm import GaussianRBM
from pyro_ebm.distributions.families.gradient_step_energy import GradientStepEnergy
from pyro_ebm.distributions.families.line_integral_energy import LineIntegralEnergy
from pyro_ebm.distributions.families.markov_network import MarkovNetwork
from pyro_ebm.distributions.families.mean_covariance_autoencoder import MeanCovarianceAutoencoder
from pyro_ebm.distributions.families.mean_covariance_rbm import MeanCovarianceRBM
from pyro_ebm.distributions.families.mean_product_of_student_t import MeanProductOfStudentT
from pyro_ebm.distributions.families.neural_energy import NeuralEnergy
from pyro_ebm.distributions.families.product_of_student_t import ProductOfStudentT
from pyro_ebm.distributions.families.tied_autoencoder import TiedAutoencoder
from pyro_ebm.distributions.parts.activations import Activation

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
