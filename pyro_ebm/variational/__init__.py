"""Variational autoencoders: pairs of model and guide, priors for them, and what their bounds are made of."""

from pyro_ebm.variational.decomposition import (
    ELBODecomposition,
    active_units,
    elbo_decomposition,
    importance_weighted_log_likelihood,
)
from pyro_ebm.variational.guide import AmortizedGuide
from pyro_ebm.variational.likelihoods import (
    BernoulliLikelihood,
    CallableLikelihood,
    ContinuousBernoulliLikelihood,
    NormalLikelihood,
)
from pyro_ebm.variational.priors import EnergyPrior, MixturePrior, NormalPrior, Prior, VampPrior
from pyro_ebm.variational.vae import CVAE, VAE

__all__ = [
    "CVAE",
    "VAE",
    "AmortizedGuide",
    "BernoulliLikelihood",
    "CallableLikelihood",
    "ContinuousBernoulliLikelihood",
    "ELBODecomposition",
    "EnergyPrior",
    "MixturePrior",
    "NormalLikelihood",
    "NormalPrior",
    "Prior",
    "VampPrior",
    "active_units",
    "elbo_decomposition",
    "importance_weighted_log_likelihood",
]
