"""Sampling: kernels for the host's MCMC, samplers of a distribution's own draws, chains, and partition estimators."""

from pyro_ebm.infer import steps
from pyro_ebm.infer.annealing import AnnealedImportanceSampling, LogPartitionBounds, log_partition_bounds
from pyro_ebm.infer.chains import ChainState, run_chain
from pyro_ebm.infer.check_model import check_model
from pyro_ebm.infer.denoising import WalkJump, plug_and_play_langevin, walk_jump
from pyro_ebm.infer.exchange import Exchange
from pyro_ebm.infer.gibbs import BlockGibbs
from pyro_ebm.infer.hamiltonian import HMC, NUTS
from pyro_ebm.infer.langevin import MALA, ULA, UnderdampedLangevin
from pyro_ebm.infer.mcmc import BatchedMCMC
from pyro_ebm.infer.tempering import ParallelTempering
from pyro_ebm.sampling.samplers import Ancestral, Exact, Gibbs, Hamiltonian, Langevin

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "ULA",
    "Ancestral",
    "AnnealedImportanceSampling",
    "BatchedMCMC",
    "BlockGibbs",
    "ChainState",
    "Exact",
    "Exchange",
    "Gibbs",
    "Hamiltonian",
    "Langevin",
    "LogPartitionBounds",
    "ParallelTempering",
    "UnderdampedLangevin",
    "WalkJump",
    "check_model",
    "log_partition_bounds",
    "plug_and_play_langevin",
    "run_chain",
    "steps",
    "walk_jump",
]
