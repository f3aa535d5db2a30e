"""Sampling: kernels for the host's MCMC, samplers of a distribution's own draws, chains, and partition estimators."""

from numpyro_ebm.infer import steps
from numpyro_ebm.infer.annealing import AnnealedImportanceSampling, LogPartitionBounds, log_partition_bounds
from numpyro_ebm.infer.chains import ChainState, run_chain
from numpyro_ebm.infer.check_model import check_model
from numpyro_ebm.infer.denoising import WalkJump, plug_and_play_langevin, walk_jump
from numpyro_ebm.infer.exchange import Exchange
from numpyro_ebm.infer.gibbs import BlockGibbs
from numpyro_ebm.infer.langevin import MALA, ULA, UnderdampedLangevin
from numpyro_ebm.infer.tempering import ParallelTempering
from numpyro_ebm.sampling.samplers import Ancestral, Exact, Gibbs, Hamiltonian, Langevin

__all__ = [
    "MALA",
    "ULA",
    "Ancestral",
    "AnnealedImportanceSampling",
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
