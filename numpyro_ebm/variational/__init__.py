"""Variational autoencoders as models and guides, with priors that know their normalisers."""

from numpyro_ebm.variational.cvae import CVAE
from numpyro_ebm.variational.decomposition import ELBODecomposition, active_units, elbo_decomposition
from numpyro_ebm.variational.energy_prior import EnergyPrior
from numpyro_ebm.variational.guide import AmortizedGuide
from numpyro_ebm.variational.plots import plot_latent, plot_reconstructions, plot_traversal
from numpyro_ebm.variational.posterior import (
    InferenceGap,
    RefinedPosterior,
    importance_weighted_log_likelihood,
    inference_gap,
    refine_posterior,
)
from numpyro_ebm.variational.priors import MixturePrior, NormalPrior, VampPrior
from numpyro_ebm.variational.vae import VAE

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
