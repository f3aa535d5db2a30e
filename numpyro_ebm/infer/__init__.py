"""Sampling: sampler configurations of a distribution's own draws, and the functional steps beneath them."""

from numpyro_ebm.infer.samplers import Exact, Gibbs, Hamiltonian, Langevin

__all__ = ["Exact", "Gibbs", "Hamiltonian", "Langevin"]
