"""Machines with Gamma hidden units, which are precisions: what products of Student-t distributions share."""

import math
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from pyro_ebm.distributions.parts.filters import FilterMachine, Units

_LARGE = 30.0  # from where four terms of the asymptotic series hold all digits


class StudentUnits(NamedTuple):
    """Covariance units ``psi(q) = log Gamma(gamma) - gamma log(1 + q)``."""

    concentration: torch.Tensor

    def potential(self, inputs: torch.Tensor) -> torch.Tensor:
        return (torch.lgamma(self.concentration) - self.concentration * torch.log1p(inputs)).sum(-1)

    def slope(self, inputs: torch.Tensor) -> torch.Tensor:
        return -self.concentration / (1 + inputs)

    def curvature(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.concentration / (1 + inputs) ** 2


class StudentMachine(FilterMachine):
    """Covariance units that are Gamma variables given ``v``, and precisions of the filter outputs given themselves."""

    optional_parameters = {"pooling": 0.0}
    default_pooling = 1.0
    arg_constraints = {
        "filters": constraints.independent(constraints.real, 2),
        "pooling": constraints.independent(constraints.nonnegative, 2),
        "concentration": constraints.independent(constraints.positive, 1),
    }
    concentration: torch.Tensor

    @property
    def _covariance_units(self) -> Units:
        return StudentUnits(self.concentration)

    def _filter_precisions(self, covariance_hidden: torch.Tensor) -> torch.Tensor:
        return self._unpool(covariance_hidden)

    def _rates(self, value: torch.Tensor) -> torch.Tensor:
        """Rates of the Gamma units given the value."""
        return 1 + self._pooled(value)

    def _precision_energy(self, precisions: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """What the Gamma units add to the joint energy."""
        return (precisions * rates + (1 - self.concentration) * torch.log(precisions)).sum(-1)

    def _precision_distribution(self, rates: torch.Tensor) -> dist.TorchDistribution:
        return dist.Gamma(self.concentration, rates, validate_args=False).to_event(1)

    def _sample_precisions(self, rates: torch.Tensor) -> torch.Tensor:
        return torch._standard_gamma(self.concentration.expand_as(rates)) / rates


def log_gamma_ratio(concentration: torch.Tensor) -> torch.Tensor:
    """``log Gamma(gamma) - log Gamma(gamma - 1/2)``, which large gammas would cancel; -inf for gamma up to 1/2."""
    has_integral = concentration > 0.5
    excess = torch.where(has_integral, concentration - 0.5, 1.0)
    large = excess.clamp(min=_LARGE)
    series = 0.5 * torch.log(large) - 1 / (8 * large) + 1 / (192 * large**3) - 1 / (640 * large**5)
    ratio = torch.where(excess < _LARGE, torch.lgamma(excess + 0.5) - torch.lgamma(excess), series)
    return torch.where(has_integral, ratio, -math.inf)
