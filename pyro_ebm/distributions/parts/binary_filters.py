"""Machines of binary covariance and mean units over filters: mixtures of Gaussians with different precisions."""

import math
from typing import Self

import pyro.distributions as dist
import torch

from _ppl_ebm.limits import MAX_ENUMERATED_TERMS
from _ppl_ebm.normals import LOG_2PI
from _ppl_ebm.properness import check_conditional_precisions
from pyro_ebm.distributions.batching import as_tensor, cholesky, linear
from pyro_ebm.distributions.parts.activations import ACTIVATIONS
from pyro_ebm.distributions.parts.bipartite import bernoulli_units
from pyro_ebm.distributions.parts.enumeration import binary_states, enumerate_terms, sample_index
from pyro_ebm.distributions.parts.filters import FilterMachine, PooledUnits, Units
from pyro_ebm.sampling.protocols import MarkovChain
from pyro_ebm.sampling.random import bernoulli_from_logits
from pyro_ebm.sampling.samplers import Hamiltonian
from pyro_ebm.sampling.types import ArrayLike

_SIGMOID = ACTIVATIONS["sigmoid"]
_CHUNK = 2**10


class BinaryFilterMachine(FilterMachine):
    """Binary covariance units and, where there are any, binary mean units."""

    optional_parameters = {"pooling": 0.0}
    default_pooling = -1.0
    option_names = ("normalize_visible",)
    covariance_bias: torch.Tensor
    visible_bias: torch.Tensor

    @property
    def has_exact_partition(self) -> bool:
        return not self.normalize_visible and 2**self.num_hidden <= MAX_ENUMERATED_TERMS

    @property
    def has_annealing(self) -> bool:
        return True

    @property
    def default_chain(self) -> MarkovChain:
        return Hamiltonian() if self.normalize_visible else super().default_chain

    def at_inverse_temperature(self, inverse_temperature: ArrayLike) -> Self:
        """The family's path from independent visible units (0) to this distribution (1).

        Pooling, weights and hidden biases are multiplied by ``inverse_temperature``; the visible part stays.
        """
        names = {"pooling", "covariance_bias", "weights", "hidden_bias"} & set(self.parameter_dims)
        beta = as_tensor("inverse_temperature", inverse_temperature, self.device, self.dtype).to(self.dtype)
        return self.replace(**{name: beta * getattr(self, name) for name in names}, log_partition=None)

    def _check_proper(self) -> None:
        if self.normalize_visible:  # the covariance units are bounded, and any quadratic form outweighs them
            return
        names = [name for name in ("filters", "pooling", "precision") if name in self.parameter_dims]
        for filters, pooling, *diagonal in self._single_models(names):
            check_conditional_precisions(type(self).__name__, filters, pooling, diagonal[0] if diagonal else 1.0)

    def _linear(self) -> torch.Tensor:
        return self.visible_bias

    @property
    def _covariance_units(self) -> Units:
        return PooledUnits(_SIGMOID, self.covariance_bias)

    @property
    def _mean_units(self) -> Units:
        return _SIGMOID

    def _filter_precisions(self, covariance_hidden: torch.Tensor) -> torch.Tensor:
        if self.normalize_visible:
            raise TypeError(
                f"normalize_visible: {type(self).__name__} expected False for visible units given hidden ones, got "
                "True: visible units that are normalised inside the covariance units are not Gaussian given these"
            )
        return -self._unpool(covariance_hidden)

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        covariance_input = self.covariance_bias + self._pooled(value)
        return torch.cat([covariance_input, self._mean_inputs(value)], -1) if self.has_mean_units else covariance_input

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return self._quadratic(value) - (hidden * self._hidden_input(value)).sum(-1)

    def _hidden_distribution(self, inputs: torch.Tensor) -> dist.TorchDistribution:
        return bernoulli_units(inputs)

    def _sample_hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        return bernoulli_from_logits(inputs)

    @property
    def has_gibbs_step(self) -> bool:
        return not self.normalize_visible

    def _mean_matrix(self) -> torch.Tensor:
        """The linear coefficients that the mean units' states multiply, shape ``(..., D, mean units)``."""
        return self.weights if self.has_mean_units else self.filters.new_zeros((*self.event_shape, 0))

    def _mean_states(self) -> torch.Tensor:
        return binary_states(self.num_hidden - self.num_covariance, self.dtype, self.device)

    def _log_terms(self) -> torch.Tensor:
        """Unnormalised log-weight of every Gaussian of the mixture, covariance units slowest."""
        states = self._mean_states()
        inputs = self.hidden_bias @ states.mT if self.has_mean_units else 0.0
        columns = _side_by_side(self._linear(), self._mean_matrix())
        coefficients = torch.cat([states.new_ones((len(states), 1)), states], -1)

        def log_term(covariance_states: torch.Tensor) -> torch.Tensor:
            hidden = self._before_batch(covariance_states)
            lower = cholesky(self._precision(hidden))
            solved = torch.linalg.solve_triangular(lower, columns, upper=False)
            exponents = 0.5 * ((coefficients @ (solved.mT @ solved)) * coefficients).sum(-1)
            half_log_det = torch.log(torch.diagonal(lower, dim1=-2, dim2=-1)).sum(-1)
            weights = (self.covariance_bias * hidden).sum(-1) - half_log_det
            return (weights.unsqueeze(-1) + inputs + exponents).movedim(0, -2).flatten(-2)

        cost = self._num_models * (self.event_shape[0] ** 2 + coefficients.numel())
        return enumerate_terms(log_term, self.num_covariance, self.dtype, self.device, cost=cost)

    def _before_batch(self, states: torch.Tensor) -> torch.Tensor:
        """States of the covariance units along a first dimension, before the batch dimensions."""
        return states.reshape(len(states), *(1 for _ in self.batch_shape), self.num_covariance)

    def _exact_log_partition(self) -> torch.Tensor:
        return 0.5 * self.event_shape[0] * LOG_2PI + torch.logsumexp(self._log_terms(), -1)

    def _base_log_partition(self) -> torch.Tensor:
        diagonal = self._diagonal()
        gaussian = self._linear() ** 2 / diagonal - torch.log(diagonal) + LOG_2PI
        return 0.5 * gaussian.sum(-1) + self.num_hidden * math.log(2)

    def _exact_moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and second moment of the mixture, some states of the covariance units at a time."""
        coefficient = self._linear().unsqueeze(-2) + self._mean_states() @ self._mean_matrix().mT
        states = binary_states(self.num_covariance, self.dtype, self.device)
        probability = torch.softmax(self._log_terms(), -1).unflatten(-1, (len(states), -1)).movedim(-2, 0)
        mean = second = torch.zeros((), dtype=self.dtype, device=self.device)
        for chunk, weights in zip(states.split(_CHUNK), probability.split(_CHUNK), strict=True):
            covariance = torch.cholesky_inverse(cholesky(self._precision(self._before_batch(chunk))))
            means = coefficient @ covariance
            mean = mean + linear(weights, means).sum(0)
            between = means.mT @ (weights.unsqueeze(-1) * means)
            second = second + (weights.sum(-1)[..., None, None] * covariance + between).sum(0)
        return mean, second

    def _exact_mean(self) -> torch.Tensor:
        return self._exact_moments()[0]

    def _exact_covariance(self) -> torch.Tensor:
        mean, second = self._exact_moments()
        return second - mean.unsqueeze(-1) * mean.unsqueeze(-2)

    def exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        index = sample_index(self._log_terms(), shape)
        return self._sample_given_hidden(binary_states(self.num_hidden, self.dtype, self.device)[index])


def _side_by_side(vector: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """A column and the columns of a matrix as one matrix, over the batch dimensions of both."""
    batch = torch.broadcast_shapes(vector.shape[:-1], matrix.shape[:-2])
    return torch.cat([vector.expand(*batch, -1).unsqueeze(-1), matrix.expand(*batch, -1, -1)], -1)
