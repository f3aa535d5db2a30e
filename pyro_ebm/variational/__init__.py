"""Variational autoencoders as models and guides, with priors that know their normalisers."""

from pyro_ebm.variational.cvae import CVAE
from pyro_ebm.variational.decomposition import ELBODecomposition, active_units, elbo_decomposition
from pyro_ebm.variational.energy_prior import EnergyPrior
from pyro_ebm.variational.guide import AmortizedGuide
from pyro_ebm.variational.plots import plot_latent, plot_reconstructions, plot_traversal
from pyro_ebm.variational.posterior import (
    InferenceGap,
    RefinedPosterior,
    importance_weighted_log_likelihood,
    inference_gap,
    refine_posterior,
)
from pyro_ebm.variational.priors import MixturePrior, NormalPrior, VampPrior
from pyro_ebm.variational.vae import VAE

__all__ = [
    "CVAE",
    "VAE",
    "AmortizedGuide",
    "ELBODecomposition",
    "EnergyPrior",
    "InferenceGap",
    "MixturePrior",
    "NormalPrior",
    "RefinedPosterior",
    "VampPrior",
    "active_units",
    "elbo_decomposition",
    "importance_weighted_log_likelihood",
    "inference_gap",
    "plot_latent",
    "plot_reconstructions",
    "plot_traversal",
    "refine_posterior",
]
