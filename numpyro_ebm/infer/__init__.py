"""Sampling: sampler configurations of a distribution's own draws, chains, and partition estimators."""

from numpyro_ebm.infer.annealing import AnnealedImportanceSampling
from numpyro_ebm.infer.chains import run_chain
from numpyro_ebm.infer.samplers import Ancestral, Exact, Gibbs, Hamiltonian, Langevin

__all__ = ["Ancestral", "AnnealedImportanceSampling", "Exact", "Gibbs", "Hamiltonian", "Langevin", "run_chain"]
