"""Products of Student-t distributions: heavy-tailed filters whose Gamma hidden units are precisions."""

import math

import pyro.distributions as dist
import torch

from _ppl_ebm.normals import LOG_2PI
from _ppl_ebm.properness import check_student_tails
from pyro_ebm.distributions.batching import cholesky, linear
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.student import StudentMachine, log_gamma_ratio
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.types import ArrayLike


class ProductOfStudentT(StudentMachine):
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
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
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

    def __init__(
        self,
        filters: ArrayLike,
        *,
        concentration: ArrayLike,
        pooling: ArrayLike | None = None,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        parameters = {"filters": filters, "concentration": concentration, "pooling": pooling}
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    @property
    def has_exact_partition(self) -> bool:
        return not self.is_pooled and self.num_covariance == self.event_shape[0]

    def _check_proper(self) -> None:
        for model in self._single_models(("filters", "pooling", "concentration")):
            check_student_tails(type(self).__name__, *model)

    def _diagonal(self) -> torch.Tensor:
        return torch.zeros(self.event_shape, dtype=self.dtype, device=self.device)

    def _quadratic_score(self, value: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(value)

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return self._rates(value)

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return self._precision_energy(hidden, self._rates(value))

    def _hidden_distribution(self, inputs: torch.Tensor) -> dist.TorchDistribution:
        return self._precision_distribution(inputs)

    def _sample_hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._sample_precisions(inputs)

    def _draw_visible(self, noise: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        lower = cholesky(self._precision(hidden))
        return torch.linalg.solve_triangular(lower.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)

    def initial(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn((*shape, *self.event_shape), dtype=self.dtype, device=self.device)

    def _exact_log_partition(self) -> torch.Tensor:
        log_det = torch.linalg.slogdet(self.filters)[1]
        has_integral = self.concentration > 0.5  # without validation, parameters are not checked before
        excess = self.concentration.masked_fill(~has_integral, 1.5) - 0.5
        log_gamma = torch.lgamma(excess).masked_fill(~has_integral, math.inf).sum(-1)
        return 0.5 * self.event_shape[0] * LOG_2PI + log_gamma - log_det

    def exact_log_prob(self, value: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
        """Without ``log Gamma`` of the concentrations, which is in the energy and in log Z and far larger than both."""
        del energy
        log_det = torch.linalg.slogdet(self.filters)[1]
        ratio = log_gamma_ratio(self.concentration).sum(-1) + log_det - 0.5 * self.event_shape[0] * LOG_2PI
        return ratio - (self.concentration * torch.log1p(self._pooled(value))).sum(-1)

    def _exact_mean(self) -> torch.Tensor:
        exists = self.concentration.amin(-1, keepdim=True) > 1
        return torch.where(exists, torch.zeros(self.event_shape, dtype=self.dtype, device=self.device), math.nan)

    def _exact_covariance(self) -> torch.Tensor:
        excess = torch.where(self.concentration > 1.5, 2 * self.concentration - 3, math.nan)
        inverse = torch.linalg.inv(self.filters)
        return (inverse.mT * (2 / excess).unsqueeze(-2)) @ inverse

    def exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        noise = torch.randn((*shape, *self.event_shape), dtype=self.dtype, device=self.device)
        precisions = torch._standard_gamma((self.concentration - 0.5).expand_as(noise))
        return linear(noise * precisions.rsqrt(), torch.linalg.inv(self.filters))
