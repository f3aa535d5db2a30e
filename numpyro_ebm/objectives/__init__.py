"""Learning criteria as distributions: observe data under them, in SVI or in MCMC."""

from numpyro_ebm.objectives.contrastive import ChainReport, ContrastiveDivergence, PersistentContrastiveDivergence
from numpyro_ebm.objectives.criterion import Criterion
from numpyro_ebm.objectives.pseudo import PseudoLikelihood
from numpyro_ebm.objectives.score_matching import ScoreMatching

__all__ = [
    "ChainReport",
    "ContrastiveDivergence",
    "Criterion",
    "PersistentContrastiveDivergence",
    "PseudoLikelihood",
    "ScoreMatching",
]
