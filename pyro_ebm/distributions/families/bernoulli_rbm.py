"""The restricted Boltzmann machine with binary units."""

import math
from typing import Any, Self

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from _ppl_ebm.calls import shows_its_call
from _ppl_ebm.limits import MAX_ENUMERATED_TERMS
from pyro_ebm.distributions.batching import linear, pullback, softplus
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.bipartite import RestrictedBoltzmannMachine, bernoulli_units
from pyro_ebm.distributions.parts.enumeration import binary_states, enumerate_terms, sample_index
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.random import bernoulli_from_logits
from pyro_ebm.sampling.types import ArrayLike


class BernoulliRBM(RestrictedBoltzmannMachine):
    r"""Restricted Boltzmann machine with binary visible and hidden units in {0, 1} (Smolensky 1986; Hinton 2002).

    .. math::

        E(v, h) = -v^\top W h - a^\top v - b^\top h, \qquad
        F(v) = -a^\top v - \sum_j \mathrm{softplus}(b_j + W_{:j}^\top v)

    The partition function is exact (a sum over the smaller layer) while that layer has at most 16 units. ``score`` and
    ``laplacian`` are those of the free energy's smooth extension to real ``v``, which gradient-informed samplers use;
    on binary data there is no score in the sense of Hyvarinen, and ``ScoreMatching`` refuses this family.

    :param weights: W, shape ``(..., visible, hidden)``.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration, ``Exact()`` or ``Gibbs()``; default: exact where possible.

    >>> import torch
    >>> from pyro_ebm import BernoulliRBM
    >>> rbm = BernoulliRBM(torch.tensor([[1.0, -0.5], [0.3, 2.0], [-1.0, 0.2]]), visible_bias=-0.5)
    >>> rbm.sample((4,)).shape
    torch.Size([4, 3])
    >>> print(f"{rbm.log_partition:.4f} {rbm.log_prob(torch.tensor([1.0, 0.0, 1.0])):.4f}")
    3.7144 -3.4669
    """

    support = constraints.independent(constraints.boolean, 1)

    def __init__(
        self,
        weights: ArrayLike,
        *,
        visible_bias: ArrayLike = 0.0,
        hidden_bias: ArrayLike = 0.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        parameters = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    @classmethod
    @shows_its_call
    def from_spins(
        cls, weights: ArrayLike, *, visible_bias: ArrayLike = 0.0, hidden_bias: ArrayLike = 0.0, **options: Any
    ) -> Self:
        """The binary machine that is equivalent to one with spins in {-1, +1}.

        With ``s = 2v - 1`` and ``t = 2h - 1`` the energies ``-s'Jt - a's - c't`` and this machine's differ by a
        constant, so the probabilities are equal.

        :param weights: spin couplings J, shape ``(..., visible, hidden)``.
        :param visible_bias: spin fields a.
        :param hidden_bias: spin fields c.
        :param options: as for the constructor.
        """
        spins = cls(weights, visible_bias=visible_bias, hidden_bias=hidden_bias, **options)
        return spins.replace(**_binary_from_spins(spins), **options)

    def to_spins(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Couplings and fields ``(J, a, c)`` of the equivalent machine with spins in {-1, +1}."""
        return _spins_from_binary(self)

    @property
    def has_conditional_logits(self) -> bool:
        return True

    def conditional_logits(self, value: ArrayLike) -> torch.Tensor:
        """Log odds of each visible unit given all others, ``F(v_i = 0) - F(v_i = 1)``, shape of ``value``."""
        return self._conditional_logits(self.check_value(value))

    @property
    def has_exact_partition(self) -> bool:
        return 2 ** min(self.event_shape[0], self.num_hidden) <= MAX_ENUMERATED_TERMS

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return -((linear(value, self.weights, self.hidden_bias) * hidden).sum(-1) + (self.visible_bias * value).sum(-1))

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        return -((self.visible_bias * value).sum(-1) + softplus(self._hidden_input(value)).sum(-1))

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        return self._visible_input(torch.sigmoid(self._hidden_input(value)))

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        active = torch.sigmoid(self._hidden_input(value))
        return ((self.weights**2).sum(-2) * active * (1 - active)).sum(-1)

    def parameter_gradient(self, value: torch.Tensor, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        active = torch.sigmoid(self._hidden_input(value)) * coefficients[:, None]
        return {"weights": value.mT @ active, "visible_bias": coefficients @ value, "hidden_bias": active.sum(0)}

    def _conditional_logits(self, value: torch.Tensor) -> torch.Tensor:
        without = self._hidden_input(value).unsqueeze(-2) - value.unsqueeze(-1) * self.weights
        return self.visible_bias + (softplus(without + self.weights) - softplus(without)).sum(-1)

    def _hidden_distribution(self, inputs: torch.Tensor) -> dist.TorchDistribution:
        return bernoulli_units(inputs)

    def _sample_hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        return bernoulli_from_logits(inputs)

    def _visible_units(self, inputs: torch.Tensor) -> dist.TorchDistribution:
        return bernoulli_units(inputs)

    def _sample_visible(self, inputs: torch.Tensor) -> torch.Tensor:
        return bernoulli_from_logits(inputs)

    @property
    def _enumerates_hidden(self) -> bool:
        return self.num_hidden <= self.event_shape[0]

    def _log_terms(self) -> torch.Tensor:
        """Unnormalised log-probability of every state of the smaller layer, the other one summed out."""
        if self._enumerates_hidden:
            weights, bias, other = self.weights.mT, self.hidden_bias, self.visible_bias
        else:
            weights, bias, other = self.weights, self.visible_bias, self.hidden_bias

        def log_term(states: torch.Tensor) -> torch.Tensor:
            return bias @ states.mT + softplus(states @ weights + other.unsqueeze(-2)).sum(-1)

        cost = self._num_models * int(other.shape[-1])
        return enumerate_terms(log_term, int(bias.shape[-1]), self.dtype, self.device, cost=cost)

    def _exact_log_partition(self) -> torch.Tensor:
        return torch.logsumexp(self._log_terms(), -1)

    def _base_log_partition(self) -> torch.Tensor:
        return softplus(self.visible_bias).sum(-1) + self.num_hidden * math.log(2)

    def _exact_mean(self) -> torch.Tensor:
        def log_partition(bias: torch.Tensor) -> torch.Tensor:
            return self.replace(visible_bias=bias, log_partition=None, validate_args=False).exact_log_partition()

        bias = self.visible_bias.expand(self.batch_shape + self.event_shape)
        total, product = pullback(log_partition, bias, self.needs_graph(bias))
        return product(torch.ones_like(total))

    def _exact_variance(self) -> torch.Tensor:
        mean = self._exact_mean()
        return mean * (1 - mean)

    def _exact_covariance(self) -> torch.Tensor:
        probability = torch.softmax(self._log_terms(), -1)
        if self._enumerates_hidden:
            states = binary_states(self.num_hidden, self.dtype, self.device)
            means = torch.sigmoid(states @ self.weights.mT + self.visible_bias.unsqueeze(-2))
        else:
            means = binary_states(self.event_shape[0], self.dtype, self.device)
        centred = means - linear(probability, means).unsqueeze(-2)
        within = linear(probability, means * (1 - means))
        return centred.mT @ (probability.unsqueeze(-1) * centred) + torch.diag_embed(within)

    def exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        index = sample_index(self._log_terms(), shape)
        if not self._enumerates_hidden:
            return binary_states(self.event_shape[0], self.dtype, self.device)[index]
        hidden = binary_states(self.num_hidden, self.dtype, self.device)[index]
        return self._sample_visible(self._visible_input(hidden))


def _binary_from_spins(spins: BernoulliRBM) -> dict[str, torch.Tensor]:
    return {
        "weights": 4 * spins.weights,
        "visible_bias": 2 * (spins.visible_bias - spins.weights.sum(-1)),
        "hidden_bias": 2 * (spins.hidden_bias - spins.weights.sum(-2)),
    }


def _spins_from_binary(rbm: BernoulliRBM) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    couplings = rbm.weights / 4
    return couplings, rbm.visible_bias / 2 + couplings.sum(-1), rbm.hidden_bias / 2 + couplings.sum(-2)
