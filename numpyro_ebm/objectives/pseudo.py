"""Pseudo-likelihood of binary energies."""

import jax
from jax.typing import ArrayLike

from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.objectives.criterion import Criterion


class PseudoLikelihood(Criterion):
    r"""Negative log pseudo-likelihood, :math:`-\sum_i \log p(v_i \mid v_{-i})` per datum (Besag 1975), exact.

    :param base: a binary energy distribution with ``conditional_logits``, such as ``BernoulliRBM``.
    :raises TypeError: for any other ``base``.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import BernoulliRBM
    >>> from numpyro_ebm.objectives import PseudoLikelihood
    >>> print(PseudoLikelihood(BernoulliRBM(jnp.zeros((3, 2)))).log_prob(jnp.array([0.0, 1.0, 1.0])).round(4))
    -2.0794
    """

    def __init__(self, base: EnergyDistribution) -> None:
        super().__init__(base)
        if not base.has_conditional_logits:
            raise TypeError(
                f"base: PseudoLikelihood expected a binary distribution such as BernoulliRBM, got {type(base).__name__}"
            )

    def loss(self, value: ArrayLike) -> jax.Array:
        logits = self.base.conditional_logits(value)
        signs = 2 * self.base.check_value(value) - 1
        return jax.nn.softplus(-signs * logits).sum(-1)
