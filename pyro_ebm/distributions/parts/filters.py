r"""Energies of a quadratic form, covariance units that pool squared filter outputs, and mean units.

.. math::

    F(v) = \tfrac12 v^\top \Lambda v - a^\top v - \sum_k \psi_k(q_k) - \sum_j \chi_j(c_j + w_j^\top v), \qquad
    q_k = \tfrac12 \sum_f P_{fk} (C_f^\top v)^2

Products of Student-t, covariance and mean-covariance machines and autoencoders differ in ``psi`` and ``chi`` only, so
energy, score and Laplacian are written here once. Given their hidden units the machines among them are Gaussian, with
the precision ``Lambda + C diag(d) C'``.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

import pyro.distributions as dist
import torch

from pyro_ebm.distributions.batching import cholesky, linear
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.parts.activations import Activation
from pyro_ebm.distributions.parts.bipartite import HiddenUnitEnergy, dispersed_states


class Units(Protocol):
    """Hidden units by what they add to the energy: a potential of their inputs, and its derivatives."""

    def potential(self, inputs: torch.Tensor, /) -> torch.Tensor:
        """The potentials of all units, summed over the last dimension."""

    def slope(self, inputs: torch.Tensor, /) -> torch.Tensor:
        """The first derivative by each unit's input."""

    def curvature(self, inputs: torch.Tensor, /) -> torch.Tensor:
        """The second derivative by each unit's input."""


class PooledUnits(NamedTuple):
    """Covariance units ``psi(q) = G(bias + gain q) / gain``, for the antiderivative G of an activation."""

    activation: Activation
    bias: torch.Tensor
    gain: float = 1.0

    def potential(self, inputs: torch.Tensor) -> torch.Tensor:
        potential = self.activation.potential(self._inputs(inputs))
        return potential if self.gain == 1 else potential / self.gain

    def slope(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.activation.slope(self._inputs(inputs))

    def curvature(self, inputs: torch.Tensor) -> torch.Tensor:
        curvature = self.activation.curvature(self._inputs(inputs))
        return curvature if self.gain == 1 else self.gain * curvature

    def _inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.add(self.bias, inputs, alpha=self.gain)


class FilterEnergy(EnergyDistribution):
    """The energy above; a member names ``psi`` by ``_covariance_units`` and, if it has mean units, ``chi`` by
    ``_mean_units``: :class:`Units` of their potential and its derivatives.
    """

    normalize_visible = False
    has_mean_units = False
    filters: torch.Tensor
    pooling: torch.Tensor
    weights: torch.Tensor
    hidden_bias: torch.Tensor
    #: What the pooling weights are where none are given: one filter feeds one unit.
    default_pooling: ClassVar[float]

    @property
    def _covariance_units(self) -> Units:
        raise NotImplementedError

    @property
    def _mean_units(self) -> Units:
        raise NotImplementedError

    @property
    def is_pooled(self) -> bool:
        """Whether ``pooling`` was given; else one filter feeds one unit."""
        return "pooling" not in self.absent

    def _absent_parameter(self, name: str, sizes: Mapping[str, int]) -> float | torch.Tensor:
        if name == "pooling":
            return self.default_pooling * torch.eye(sizes["filter"])
        return super()._absent_parameter(name, sizes)

    def _diagonal(self) -> torch.Tensor:
        """The diagonal of Lambda."""
        return torch.ones(self.event_shape, dtype=self.dtype, device=self.device)

    def _linear(self) -> torch.Tensor:
        """The linear coefficient a."""
        return torch.zeros(self.event_shape, dtype=self.dtype, device=self.device)

    def _quadratic_score(self, value: torch.Tensor) -> torch.Tensor:
        """The score of the quadratic form, here of ``Lambda = I``."""
        return self._linear() - value

    def _outputs(self, value: torch.Tensor) -> torch.Tensor:
        """``C'v``, the outputs of the filters."""
        return linear(value, self.filters)

    def _pool(self, outputs: torch.Tensor) -> torch.Tensor:
        """One number per covariance unit from one per filter."""
        return linear(outputs, self.pooling) if self.is_pooled else self._default_pooled(outputs)

    def _unpool(self, units: torch.Tensor) -> torch.Tensor:
        """The transpose of :meth:`_pool`."""
        return linear(units, self.pooling.mT) if self.is_pooled else self._default_pooled(units)

    def _default_pooled(self, units: torch.Tensor) -> torch.Tensor:
        return units if self.default_pooling == 1 else self.default_pooling * units

    def _pooled(
        self, value: torch.Tensor, outputs: torch.Tensor | None = None, norm: torch.Tensor | None = None
    ) -> torch.Tensor:
        """q, the inputs of the covariance units; ``outputs`` of the filters and :meth:`_norm` may be known already."""
        pooled = 0.5 * self._pool((self._outputs(value) if outputs is None else outputs) ** 2)
        if not self.normalize_visible:
            return pooled
        return pooled / (self._norm(value) if norm is None else norm)

    def _norm(self, value: torch.Tensor) -> torch.Tensor:
        return (value**2).mean(-1, keepdim=True) + 0.5

    def _mean_inputs(self, value: torch.Tensor) -> torch.Tensor:
        return linear(value, self.weights, self.hidden_bias)

    def _quadratic(self, value: torch.Tensor) -> torch.Tensor:
        return ((0.5 * self._diagonal() * value - self._linear()) * value).sum(-1)

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        energy = self._quadratic(value) - self._covariance_units.potential(self._pooled(value))
        return energy - self._mean_units.potential(self._mean_inputs(value)) if self.has_mean_units else energy

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        outputs = self._outputs(value)
        norm = self._norm(value) if self.normalize_visible else None
        pooled = self._pooled(value, outputs, norm)
        slopes = self._covariance_units.slope(pooled)
        quadratic = self._quadratic_score(value)
        score = linear(self._unpool(slopes) * outputs, self.filters.mT, quadratic if norm is None else None)
        if norm is not None:
            centre = torch.linalg.vecdot(slopes, pooled).unsqueeze(-1)
            score = torch.addcdiv(quadratic, torch.addcmul(score, centre, value, value=-2 / value.shape[-1]), norm)
        if self.has_mean_units:
            score = linear(self._mean_units.slope(self._mean_inputs(value)), self.weights.mT, score)
        return score

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        outputs = self._outputs(value)
        norm = self._norm(value) if self.normalize_visible else None
        pooled = self._pooled(value, outputs, norm)
        slopes, curvatures = self._covariance_units.slope(pooled), self._covariance_units.curvature(pooled)
        squares = self._squared_gradients(outputs)
        traces = (self._unpool(slopes) * (self.filters**2).sum(-2)).sum(-1)
        if norm is not None:  # q is a quotient p / n, with v'grad p = 2p and n = |v|^2 / D + 1/2
            ratio = 4 / (value.shape[-1] * norm)
            squares = squares / norm**2 - ratio * (1 + 0.5 / norm) * pooled**2
            traces = ((traces.unsqueeze(-1) - (2 + ratio) * (slopes * pooled).sum(-1, keepdim=True)) / norm).squeeze(-1)
        laplacian = (curvatures * squares).sum(-1) + traces - self._diagonal().sum(-1)
        if self.has_mean_units:
            curvatures = self._mean_units.curvature(self._mean_inputs(value))
            laplacian = laplacian + (curvatures * (self.weights**2).sum(-2)).sum(-1)
        return laplacian

    def _squared_gradients(self, outputs: torch.Tensor) -> torch.Tensor:
        """Squared norm of the gradient of each q_k from the outputs of the filters, shape ``(..., covariance)``."""
        if self.is_pooled:
            return ((self.filters @ (outputs.unsqueeze(-1) * self.pooling)) ** 2).sum(-2)
        return self.default_pooling**2 * outputs**2 * (self.filters**2).sum(-2)


class FilterMachine(HiddenUnitEnergy, FilterEnergy):
    """Machines with covariance units, then mean units, in one hidden vector; Gaussian given these.

    A member defines ``_filter_precisions``, the weights ``d`` of the precision ``Lambda + C diag(d) C'``.
    """

    @property
    def num_covariance(self) -> int:
        """Number of hidden units that pool squared filter outputs; they come first in the hidden vector."""
        return int(self.pooling.shape[-1])

    @property
    def num_hidden(self) -> int:
        return self.num_covariance + (int(self.weights.shape[-1]) if self.has_mean_units else 0)

    def _filter_precisions(self, covariance_hidden: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _split(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Covariance units and mean units, or their inputs."""
        return hidden[..., : self.num_covariance], hidden[..., self.num_covariance :]

    def _conditional_linear(self, mean_hidden: torch.Tensor) -> torch.Tensor:
        """Precision times mean of the visible units given the hidden ones."""
        return linear(mean_hidden, self.weights.mT, self._linear()) if self.has_mean_units else self._linear()

    def _precision(self, covariance_hidden: torch.Tensor) -> torch.Tensor:
        weighted = self.filters * self._filter_precisions(covariance_hidden).unsqueeze(-2)
        return torch.diag_embed(self._diagonal()) + weighted @ self.filters.mT

    def _visible_distribution(self, hidden: torch.Tensor) -> dist.TorchDistribution:
        covariance_hidden, mean_hidden = self._split(hidden)
        precision = self._precision(covariance_hidden)
        coefficient = self._conditional_linear(mean_hidden).unsqueeze(-1)
        loc = torch.cholesky_solve(coefficient, cholesky(precision)).squeeze(-1)
        return dist.MultivariateNormal(loc, precision_matrix=precision, validate_args=False)

    def _sample_given_hidden(self, hidden: torch.Tensor) -> torch.Tensor:
        shape = (*hidden.shape[:-1], *self.event_shape)
        return self._draw_visible(torch.randn(shape, dtype=self.dtype, device=self.device), hidden)

    def _draw_visible(self, noise: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        covariance_hidden, mean_hidden = self._split(hidden)
        precisions = self._filter_precisions(covariance_hidden)
        root = self._diagonal().sqrt()
        coefficient = self._conditional_linear(mean_hidden) / root
        return structured_normal(noise, self.filters / root.unsqueeze(-1), precisions, coefficient) / root

    def initial(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Draws of the machine without covariance units, ``Normal((a + W h) / Lambda, Lambda^-1)``, where another share
        of the mean units is on in every chain.
        """
        noise = torch.randn((*shape, *self.event_shape), dtype=self.dtype, device=self.device)
        hidden = dispersed_states(shape, self.num_hidden - self.num_covariance, self.dtype, self.device)
        diagonal = self._diagonal()
        return self._conditional_linear(hidden) / diagonal + noise / diagonal.sqrt()


def structured_normal(
    noise: torch.Tensor, filters: torch.Tensor, weights: torch.Tensor, coefficient: torch.Tensor
) -> torch.Tensor:
    """``L^-1 coefficient + L^-1/2 noise`` for ``L = I + filters diag(weights) filters'``: from noise, a draw.

    With fewer filters than dimensions the precision differs from the identity in the filters' span only, and the matrix
    that is factored has one row for each filter.

    :param noise: standard normal, shape ``(..., D)``.
    :param filters: shape ``(..., D, F)``; they do not depend on the weights, so one QR factorisation serves many draws.
    :param weights: shape ``(..., F)``, of any sign that leaves L positive definite.
    :param coefficient: shape ``(..., D)``.
    """
    size, num_filters = filters.shape[-2:]
    if num_filters >= size:
        identity = torch.eye(size, dtype=filters.dtype, device=filters.device)
        lower = cholesky(identity + (filters * weights.unsqueeze(-2)) @ filters.mT)
        centred = torch.linalg.solve_triangular(lower, coefficient.unsqueeze(-1), upper=False) + noise.unsqueeze(-1)
        return torch.linalg.solve_triangular(lower.mT, centred, upper=True).squeeze(-1)
    basis, root = torch.linalg.qr(filters)
    inside = structured_normal(linear(noise, basis), root, weights, linear(coefficient, basis))
    outside = coefficient + noise
    return outside + linear(inside - linear(outside, basis), basis.mT)
