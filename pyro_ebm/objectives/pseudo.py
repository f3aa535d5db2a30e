"""Pseudo-likelihood of binary energies."""

import torch

from pyro_ebm.distributions.batching import softplus
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.objectives.criterion import Criterion
from pyro_ebm.sampling.types import ArrayLike


class PseudoLikelihood(Criterion):
    r"""Negative log pseudo-likelihood, :math:`-\sum_i \log p(v_i \mid v_{-i})` per datum (Besag 1975), exact.

    :param base: a binary energy distribution with ``conditional_logits``, such as ``BernoulliRBM``.
    :raises TypeError: for any other ``base``.

    >>> import torch
    >>> from pyro_ebm import BernoulliRBM
    >>> from pyro_ebm.objectives import PseudoLikelihood
    >>> print(PseudoLikelihood(BernoulliRBM(torch.zeros(3, 2))).log_prob(torch.tensor([0.0, 1.0, 1.0])))
    tensor(-2.0794)
    """

    def __init__(self, base: EnergyDistribution) -> None:
        super().__init__(base)
        if not base.has_conditional_logits:
            raise TypeError(
                f"base: PseudoLikelihood expected a binary distribution such as BernoulliRBM, got {type(base).__name__}"
            )

    def loss(self, value: ArrayLike) -> torch.Tensor:
        logits = self.base.conditional_logits(value)
        signs = 2 * self.base.check_value(value) - 1
        return softplus(-signs * logits).sum(-1)
