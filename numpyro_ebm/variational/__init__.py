"""Variational autoencoders as models and guides, with priors that know their normalisers."""

from numpyro_ebm.variational.decomposition import (
    active_units,
    elbo_decomposition,
    importance_weighted_log_likelihood,
)
from numpyro_ebm.variational.guide import AmortizedGuide
from numpyro_ebm.variational.priors import EnergyPrior, MixturePrior, NormalPrior, VampPrior
from numpyro_ebm.variational.vae import CVAE, VAE

__all__ = [
    "CVAE",
    "VAE",
    "AmortizedGuide",
    "EnergyPrior",
    "MixturePrior",
    "NormalPrior",
    "VampPrior",
    "active_units",
    "elbo_decomposition",
    "importance_weighted_log_likelihood",
]
