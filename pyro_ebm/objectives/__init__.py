"""Learning criteria as distributions: observe data under them, in SVI or in MCMC."""

from pyro_ebm.objectives.contrastive import ChainReport, ContrastiveDivergence, PersistentContrastiveDivergence
from pyro_ebm.objectives.criterion import Criterion
from pyro_ebm.objectives.pseudo import PseudoLikelihood
from pyro_ebm.objectives.score_matching import ScoreMatching

__all__ = [
    "ChainReport",
    "ContrastiveDivergence",
    "Criterion",
    "PersistentContrastiveDivergence",
    "PseudoLikelihood",
    "ScoreMatching",
]
