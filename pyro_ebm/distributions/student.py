"""Products of Student-t distributions: heavy-tailed filters whose Gamma hidden units are precisions."""

import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from pyro_ebm.distributions.activations import ACTIVATIONS
from pyro_ebm.distributions.concatenated import Concatenated
from pyro_ebm.distributions.filters import LOG_2PI, FilterMachine
from pyro_ebm.distributions.properness import check_student_tails, single_models
from pyro_ebm.distributions.rbm import bernoulli_units
from pyro_ebm.distributions.tensors import as_tensor, cholesky, linear
from pyro_ebm.infer.bernoulli import bernoulli_from_logits

_SIGMOID = ACTIVATIONS["sigmoid"]


class ProductOfStudentT(FilterMachine):
    r"""Product of Student-t distributions, PoT (Welling, Hinton & Osindero 2003).

    .. math::

        F(v) = \sum_k \gamma_k \log(1 + q_k) - \log \Gamma(\gamma_k), \qquad
        q_k = \tfrac12 \sum_f P_{fk} (C_f^\top v)^2

    from the joint energy ``sum_k h_k (1 + q_k) + (1 - gamma_k) log h_k``: given ``v`` the hidden units are
    ``Gamma(gamma, rate = 1 + q)``, and given them ``v ~ Normal(0, (C diag(P h) C')^-1)``. Without pooling every filter
    has a unit of its own, and as many independent filters as dimensions make the normaliser, the moments and draws
    exact: the filter outputs are then independent Student-t variables of ``2 gamma - 1`` degrees of freedom.

    Proper if and only if every subspace ``U`` has ``2 sum of gamma_k > dim U`` over the units with a filter that is not
    orthogonal to it.

    :param filters: C, shape ``(..., visible, filter)``.
    :param concentration: gamma, the Gamma shape of each hidden unit, shape ``(..., hidden)`` or a scalar.
    :param pooling: P >= 0, shape ``(..., filter, hidden)``; default: a hidden unit for each filter.
    :param log_partition: normaliser policy; ``"auto"`` is exact for square unpooled filters, else unknown.
    :param sampler: sampler configuration; default: exact where possible, else ``Gibbs()``.
    :raises ImproperDensityError: if the tails are too heavy to have an integral.

    >>> import torch
    >>> from pyro_ebm import ProductOfStudentT
    >>> pot = ProductOfStudentT(torch.tensor([[1.0, 0.0], [1.0, 2.0]]), concentration=3.0)
    >>> pot.sample((4,)).shape
    torch.Size([4, 2])
    >>> print(pot.variance)
    tensor([0.8333, 0.1667])
    """

    parameter_dims = {
        "filters": ("visible", "filter"),
        "pooling": ("filter", "hidden"),
        "concentration": ("hidden",),
    }
    parameter_defaults = {"pooling": 1.0}
    optional_parameters = ("pooling",)
    arg_constraints = {
        "filters": constraints.independent(constraints.real, 2),
        "pooling": constraints.independent(constraints.nonnegative, 2),
        "concentration": constraints.independent(constraints.positive, 1),
    }
    concentration: torch.Tensor

    @property
    def is_pooled(self) -> bool:
        """Whether ``pooling`` was given."""
        return "pooling" not in self._absent

    @property
    def has_exact_partition(self) -> bool:
        return not self.is_pooled and self.num_covariance == self.event_shape[0]

    def _default_parameter(self, name: str, sizes: Mapping[str, int]) -> Any:
        return torch.eye(sizes["filter"]) if name == "pooling" else super()._default_parameter(name, sizes)

    def _check_proper(self) -> None:
        for model in single_models(self, ("filters", "pooling", "concentration")):
            check_student_tails(type(self).__name__, *model)

    def _diagonal(self) -> torch.Tensor:
        return torch.zeros(self.event_shape, dtype=self.dtype, device=self.device)

    def _pull(self, value: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(value)

    def _pool(self, outputs: torch.Tensor) -> torch.Tensor:
        return super()._pool(outputs) if self.is_pooled else outputs

    def _unpool(self, units: torch.Tensor) -> torch.Tensor:
        return super()._unpool(units) if self.is_pooled else units

    def _squared_gradients(self, outputs: torch.Tensor) -> torch.Tensor:
        if self.is_pooled:
            return super()._squared_gradients(outputs)
        return outputs**2 * (self.filters**2).sum(-2)

    def _covariance_units(self, pooled: torch.Tensor, order: int) -> torch.Tensor:
        if order == 0:
            return (torch.lgamma(self.concentration) - self.concentration * torch.log1p(pooled)).sum(-1)
        return -self.concentration / (1 + pooled) if order == 1 else self.concentration / (1 + pooled) ** 2

    def _filter_precisions(self, covariance_hidden: torch.Tensor) -> torch.Tensor:
        return self._unpool(covariance_hidden)

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return 1 + self._pooled(value)

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return (hidden * self._hidden_input(value) + (1 - self.concentration) * torch.log(hidden)).sum(-1)

    def _hidden_distribution(self, rates: torch.Tensor) -> Any:
        return dist.Gamma(self.concentration, rates, validate_args=False).to_event(1)

    def _sample_hidden(self, rates: torch.Tensor) -> torch.Tensor:
        return torch._standard_gamma(self.concentration.expand_as(rates)) / rates

    def _draw_visible(self, noise: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        lower = cholesky(self._precision(hidden))
        return torch.linalg.solve_triangular(lower.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)

    def _initial(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn((*shape, *self.event_shape), dtype=self.dtype, device=self.device)

    def _exact_log_partition(self) -> torch.Tensor:
        log_det = torch.linalg.slogdet(self.filters)[1]
        return 0.5 * self.event_shape[0] * LOG_2PI + torch.lgamma(self.concentration - 0.5).sum(-1) - log_det

    def _exact_mean(self) -> torch.Tensor:
        exists = self.concentration.amin(-1, keepdim=True) > 1
        return torch.where(exists, torch.zeros(self.event_shape, dtype=self.dtype, device=self.device), math.nan)

    def _exact_covariance(self) -> torch.Tensor:
        excess = torch.where(self.concentration > 1.5, 2 * self.concentration - 3, math.nan)
        inverse = torch.linalg.inv(self.filters)
        return (inverse.mT * (2 / excess).unsqueeze(-2)) @ inverse

    def _exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        noise = torch.randn((*shape, *self.event_shape), dtype=self.dtype, device=self.device)
        precisions = torch._standard_gamma((self.concentration - 0.5).expand_as(noise))
        return linear(noise * precisions.rsqrt(), torch.linalg.inv(self.filters))


class MeanProductOfStudentT(ProductOfStudentT):
    r"""Mean-covariance product of Student-t distributions, mPoT (Ranzato, Mnih & Hinton 2010).

    .. math::

        F(v) = \sum_k \gamma_k \log(1 + q_k) - \log \Gamma(\gamma_k) - \sum_j \mathrm{softplus}(c_j + w_j^\top v)
               + \tfrac12 v^\top v - a^\top v, \qquad q_k = \tfrac12 \sum_f P_{fk} (C_f^\top v)^2

    The hidden vector is the Gamma units of :class:`ProductOfStudentT`, then binary mean units with logits
    ``c + W' v``. Given both, ``v`` is Gaussian with precision ``L = I + C diag(P h_gamma) C'`` and mean
    ``L^-1 (a + W h_mean)``, which is not ``W h_mean``. Proper for all parameters; the partition function is not known.

    :param filters: C, shape ``(..., visible, filter)``.
    :param weights: W, shape ``(..., visible, mean)``.
    :param concentration: gamma, shape ``(..., hidden)`` or a scalar.
    :param visible_bias: a, the linear coefficient (not the mean), shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: c, shape ``(..., mean)`` or a scalar; default 0.
    :param pooling: P >= 0, shape ``(..., filter, hidden)``; default: a hidden unit for each filter.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param sampler: sampler configuration; default ``Gibbs()``.

    >>> import torch
    >>> from pyro_ebm import MeanProductOfStudentT
    >>> mpot = MeanProductOfStudentT(torch.ones(2, 1), torch.tensor([[1.0], [-1.0]]), concentration=2.0)
    >>> mpot.sample((4,)).shape
    torch.Size([4, 2])
    >>> print(mpot.score(torch.zeros(2)))
    tensor([ 0.5000, -0.5000])
    """

    parameter_dims = {
        "filters": ("visible", "filter"),
        "weights": ("visible", "mean"),
        "pooling": ("filter", "hidden"),
        "concentration": ("hidden",),
        "visible_bias": ("visible",),
        "hidden_bias": ("mean",),
    }
    parameter_defaults = {"visible_bias": 0.0, "hidden_bias": 0.0, "pooling": 1.0}
    arg_constraints = {
        **ProductOfStudentT.arg_constraints,
        "weights": constraints.independent(constraints.real, 2),
        "visible_bias": constraints.real_vector,
        "hidden_bias": constraints.real_vector,
    }
    has_mean_units = True
    visible_bias: torch.Tensor

    @property
    def has_exact_partition(self) -> bool:
        return False

    def annealed(self, inverse_temperature: Any) -> Any:
        """The family's path from independent visible units (0) to this distribution (1).

        Squared filter outputs, weights and hidden biases are multiplied by ``inverse_temperature``.
        """
        beta = as_tensor("inverse_temperature", inverse_temperature, self.device, self.dtype).to(self.dtype)
        return self._with(
            filters=beta.sqrt() * self.filters,
            weights=beta * self.weights,
            hidden_bias=beta * self.hidden_bias,
            log_partition=None,
        )

    def _check_proper(self) -> None:
        """The quadratic form outweighs the mean units, and the covariance units only help."""

    def _diagonal(self) -> torch.Tensor:
        return FilterMachine._diagonal(self)

    _pull = FilterMachine._pull

    def _linear(self) -> torch.Tensor:
        return self.visible_bias

    def _mean_units(self, inputs: torch.Tensor, order: int) -> torch.Tensor:
        return _SIGMOID.units(inputs, order)

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return torch.cat([1 + self._pooled(value), self._mean_inputs(value)], -1)

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        rates, logits = self._split(self._hidden_input(value))
        precisions, means = self._split(hidden)
        energy = (precisions * rates + (1 - self.concentration) * torch.log(precisions)).sum(-1)
        return energy + self._quadratic(value) - (means * logits).sum(-1)

    def _hidden_distribution(self, inputs: torch.Tensor) -> Any:
        rates, logits = self._split(inputs)
        return Concatenated(super()._hidden_distribution(rates), bernoulli_units(logits))

    def _sample_hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        rates, logits = self._split(inputs)
        return torch.cat([super()._sample_hidden(rates), bernoulli_from_logits(logits)], -1)

    _draw_visible = FilterMachine._draw_visible
    _initial = FilterMachine._initial

    def _base_log_partition(self) -> torch.Tensor:
        gaussian = 0.5 * (self.visible_bias**2 + LOG_2PI).sum(-1) + torch.lgamma(self.concentration).sum(-1)
        return gaussian + int(self.weights.shape[-1]) * math.log(2)
