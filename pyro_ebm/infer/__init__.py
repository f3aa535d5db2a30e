"""Sampling: sampler configurations of a distribution's own draws, chains, and partition estimators."""

from pyro_ebm.infer.annealing import AnnealedImportanceSampling
from pyro_ebm.infer.chains import run_chain
from pyro_ebm.infer.samplers import Ancestral, Exact, Gibbs, Hamiltonian, Langevin

__all__ = ["Ancestral", "AnnealedImportanceSampling", "Exact", "Gibbs", "Hamiltonian", "Langevin", "run_chain"]
