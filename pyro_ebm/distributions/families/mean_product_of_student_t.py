"""The product of Student-t distributions with mean units."""

import math
from typing import Self

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from _ppl_ebm.normals import LOG_2PI
from pyro_ebm.distributions.batching import as_tensor
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.activations import ACTIVATIONS
from pyro_ebm.distributions.parts.bipartite import bernoulli_units
from pyro_ebm.distributions.parts.concatenated import Concatenated
from pyro_ebm.distributions.parts.filters import Units
from pyro_ebm.distributions.parts.student import StudentMachine
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.random import bernoulli_from_logits
from pyro_ebm.sampling.types import ArrayLike

_SIGMOID = ACTIVATIONS["sigmoid"]


class MeanProductOfStudentT(StudentMachine):
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
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
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
    arg_constraints = {
        **StudentMachine.arg_constraints,
        "weights": constraints.independent(constraints.real, 2),
        "visible_bias": constraints.real_vector,
        "hidden_bias": constraints.real_vector,
    }
    has_mean_units = True
    visible_bias: torch.Tensor

    def __init__(
        self,
        filters: ArrayLike,
        weights: ArrayLike,
        *,
        concentration: ArrayLike,
        pooling: ArrayLike | None = None,
        visible_bias: ArrayLike = 0.0,
        hidden_bias: ArrayLike = 0.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        parameters = {
            "filters": filters,
            "weights": weights,
            "concentration": concentration,
            "pooling": pooling,
            "visible_bias": visible_bias,
            "hidden_bias": hidden_bias,
        }
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    @property
    def has_annealing(self) -> bool:
        return True

    def at_inverse_temperature(self, inverse_temperature: ArrayLike) -> Self:
        """The family's path from independent visible units (0) to this distribution (1).

        Squared filter outputs, weights and hidden biases are multiplied by ``inverse_temperature``.
        """
        beta = as_tensor("inverse_temperature", inverse_temperature, self.device, self.dtype).to(self.dtype)
        return self.replace(
            filters=beta.sqrt() * self.filters,
            weights=beta * self.weights,
            hidden_bias=beta * self.hidden_bias,
            log_partition=None,
        )

    def _linear(self) -> torch.Tensor:
        return self.visible_bias

    @property
    def _mean_units(self) -> Units:
        return _SIGMOID

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._rates(value), self._mean_inputs(value)], -1)

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        precisions, means = self._split(hidden)
        energy = self._precision_energy(precisions, self._rates(value))
        return energy + self._quadratic(value) - (means * self._mean_inputs(value)).sum(-1)

    def _hidden_distribution(self, inputs: torch.Tensor) -> dist.TorchDistribution:
        rates, logits = self._split(inputs)
        return Concatenated(self._precision_distribution(rates), bernoulli_units(logits))

    def _sample_hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        rates, logits = self._split(inputs)
        return torch.cat([self._sample_precisions(rates), bernoulli_from_logits(logits)], -1)

    def _base_log_partition(self) -> torch.Tensor:
        gaussian = 0.5 * (self.visible_bias**2 + LOG_2PI).sum(-1) + torch.lgamma(self.concentration).sum(-1)
        return gaussian + int(self.weights.shape[-1]) * math.log(2)
