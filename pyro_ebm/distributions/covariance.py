"""Covariance and mean-covariance restricted Boltzmann machines: hidden units that set correlations between pixels."""

import math
from typing import Any

import torch
from torch.distributions import constraints

from pyro_ebm.distributions.activations import ACTIVATIONS
from pyro_ebm.distributions.bipartite import sample_index
from pyro_ebm.distributions.filters import LOG_2PI, FilterMachine
from pyro_ebm.distributions.partition import MAX_ENUMERATED_TERMS, binary_states, enumerate_terms
from pyro_ebm.distributions.properness import check_conditional_precisions, single_models
from pyro_ebm.distributions.rbm import bernoulli_units
from pyro_ebm.distributions.tensors import as_tensor, cholesky, linear
from pyro_ebm.infer.bernoulli import bernoulli_from_logits
from pyro_ebm.infer.samplers import Hamiltonian, Sampler

_SIGMOID = ACTIVATIONS["sigmoid"]
_CHUNK = 2**10


class _BinaryFilterMachine(FilterMachine):
    """Binary covariance units and, where there are any, binary mean units."""

    option_defaults = {"normalize_visible": False}
    covariance_bias: torch.Tensor
    visible_bias: torch.Tensor

    def _resolve_option(self, name: str, option: Any) -> bool:
        if not isinstance(option, bool):
            raise TypeError(f"{name}: expected True or False, got {option!r}")
        return option

    @property
    def has_exact_partition(self) -> bool:
        return not self.normalize_visible and 2**self.num_hidden <= MAX_ENUMERATED_TERMS

    @property
    def default_chain(self) -> Sampler:
        return Hamiltonian() if self.normalize_visible else super().default_chain

    def annealed(self, inverse_temperature: Any) -> Any:
        """The family's path from independent visible units (0) to this distribution (1).

        Pooling, weights and hidden biases are multiplied by ``inverse_temperature``; the visible part stays.
        """
        names = {"pooling", "covariance_bias", "weights", "hidden_bias"} & set(self.parameter_dims)
        beta = as_tensor("inverse_temperature", inverse_temperature, self.device, self.dtype).to(self.dtype)
        return self._with(**{name: beta * getattr(self, name) for name in names}, log_partition=None)

    def _check_proper(self) -> None:
        if self.normalize_visible:  # the covariance units are bounded, and any quadratic form outweighs them
            return
        names = [name for name in ("filters", "pooling", "precision") if name in self.parameter_dims]
        for filters, pooling, *diagonal in single_models(self, names):
            check_conditional_precisions(type(self).__name__, filters, pooling, diagonal[0] if diagonal else 1.0)

    def _linear(self) -> torch.Tensor:
        return self.visible_bias

    def _covariance_units(self, pooled: torch.Tensor, order: int) -> torch.Tensor:
        return _SIGMOID.units(self.covariance_bias + pooled, order)

    def _mean_units(self, inputs: torch.Tensor, order: int) -> torch.Tensor:
        return _SIGMOID.units(inputs, order)

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

    _hidden_distribution = staticmethod(bernoulli_units)
    _sample_hidden = staticmethod(bernoulli_from_logits)

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

        return enumerate_terms(log_term, self.num_covariance, self.dtype, self.device)

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

    def _exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        index = sample_index(self._log_terms(), shape)
        return self._sample_given_hidden(binary_states(self.num_hidden, self.dtype, self.device)[index])


class CovarianceRBM(_BinaryFilterMachine):
    r"""Covariance restricted Boltzmann machine (Ranzato, Krizhevsky & Hinton 2010, eq. 2; Ranzato & Hinton 2010).

    .. math::

        F(v) = \tfrac12 v^\top \Lambda v - a^\top v
               - \sum_k \mathrm{softplus}\Big(b_k + \tfrac12 \sum_f P_{fk} (C_f^\top v)^2\Big)

    Given its binary hidden units ``h``, ``v`` is Gaussian with the precision ``Lambda - C diag(P h) C'``: with
    ``P <= 0`` an active unit forbids variation along its filters, and large variation switches it off. Proper while
    that precision is positive definite for every ``h``; with ``P <= 0`` it always is. Exact density, moments and draws
    while ``covariance <= 16``.

    :param filters: C, shape ``(..., visible, filter)``.
    :param pooling: P, shape ``(..., filter, covariance)``.
    :param covariance_bias: b, shape ``(..., covariance)`` or a scalar; default 0.
    :param visible_bias: a, the linear coefficient (not the mean), shape ``(..., visible)`` or a scalar; default 0.
    :param precision: the diagonal of Lambda, inverse variances, shape ``(..., visible)`` or a scalar; default 1.
    :param normalize_visible: divide ``v`` by ``sqrt(mean(v^2) + 0.5)`` inside the covariance units (Ranzato & Hinton
        2010, section 3.1). ``v`` given ``h`` is then not Gaussian: draws are by ``Hamiltonian()``, and there is no
        exact partition function; the density is proper for every ``P``.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param sampler: sampler configuration; default: exact where possible, else ``Gibbs()``.
    :raises ImproperDensityError: if some state of the hidden units leaves a precision that is not positive definite.

    >>> import torch
    >>> from pyro_ebm import CovarianceRBM
    >>> crbm = CovarianceRBM(torch.eye(2), pooling=-3 * torch.ones(2, 1), covariance_bias=20.0)
    >>> print(crbm.variance)
    tensor([0.2500, 0.2500])
    """

    parameter_dims = {
        "filters": ("visible", "filter"),
        "pooling": ("filter", "covariance"),
        "covariance_bias": ("covariance",),
        "visible_bias": ("visible",),
        "precision": ("visible",),
    }
    parameter_defaults = {"covariance_bias": 0.0, "visible_bias": 0.0, "precision": 1.0}
    arg_constraints = {
        "filters": constraints.independent(constraints.real, 2),
        "pooling": constraints.independent(constraints.real, 2),
        "covariance_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
        "precision": constraints.independent(constraints.positive, 1),
    }
    precision: torch.Tensor

    def _diagonal(self) -> torch.Tensor:
        return self.precision

    def _pull(self, value: torch.Tensor) -> torch.Tensor:
        return self._linear() - self.precision * value


class MeanCovarianceRBM(_BinaryFilterMachine):
    r"""Mean-covariance restricted Boltzmann machine (Ranzato & Hinton 2010, eqs. 5 to 8).

    .. math::

        F(v) = \tfrac12 v^\top v - a^\top v - \sum_k \mathrm{softplus}\Big(b_k + \tfrac12 \sum_f P_{fk}
               (C_f^\top v)^2\Big) - \sum_j \mathrm{softplus}(c_j + w_j^\top v)

    The hidden vector is the covariance units, then the mean units. Given both, ``v`` is Gaussian with precision
    ``L = I - C diag(P h_cov) C'`` and mean ``L^-1 (a + W h_mean)``. Proper while L is positive definite for every state
    of the covariance units. Exact density, moments and draws while there are at most 16 hidden units together.

    :param filters: C, shape ``(..., visible, filter)``.
    :param pooling: P, shape ``(..., filter, covariance)``.
    :param weights: W, shape ``(..., visible, hidden)``.
    :param covariance_bias: b, shape ``(..., covariance)`` or a scalar; default 0.
    :param hidden_bias: c, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: a, the linear coefficient (not the mean), shape ``(..., visible)`` or a scalar; default 0.
    :param normalize_visible: as in :class:`CovarianceRBM`.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param sampler: sampler configuration; default: exact where possible, else ``Gibbs()``.
    :raises ImproperDensityError: if some state of the covariance units leaves an L that is not positive definite.

    >>> import torch
    >>> from pyro_ebm import MeanCovarianceRBM
    >>> mcrbm = MeanCovarianceRBM(torch.eye(2), -torch.ones(2, 1), torch.tensor([[1.0], [0.0]]))
    >>> mcrbm.sample((4,)).shape
    torch.Size([4, 2])
    >>> print(f"{mcrbm.log_partition:.4f}")
    3.1704
    """

    parameter_dims = {
        "filters": ("visible", "filter"),
        "pooling": ("filter", "covariance"),
        "weights": ("visible", "hidden"),
        "covariance_bias": ("covariance",),
        "hidden_bias": ("hidden",),
        "visible_bias": ("visible",),
    }
    parameter_defaults = {"covariance_bias": 0.0, "hidden_bias": 0.0, "visible_bias": 0.0}
    arg_constraints = {
        "filters": constraints.independent(constraints.real, 2),
        "pooling": constraints.independent(constraints.real, 2),
        "weights": constraints.independent(constraints.real, 2),
        "covariance_bias": constraints.real_vector,
        "hidden_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
    }
    has_mean_units = True


def _side_by_side(vector: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """A column and the columns of a matrix as one matrix, over the batch dimensions of both."""
    batch = torch.broadcast_shapes(vector.shape[:-1], matrix.shape[:-2])
    return torch.cat([vector.expand(*batch, -1).unsqueeze(-1), matrix.expand(*batch, -1, -1)], -1)
