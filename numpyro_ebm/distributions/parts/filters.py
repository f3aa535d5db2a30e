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

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular

from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.distributions.parts.activations import Activation
from numpyro_ebm.distributions.parts.bipartite import HiddenUnitEnergy, dispersed_states
from numpyro_ebm.sampling.types import Key


class Units(Protocol):
    """Hidden units by what they add to the energy: a potential of their inputs, and its derivatives."""

    def potential(self, inputs: jax.Array, /) -> jax.Array:
        """The potentials of all units, summed."""

    def slope(self, inputs: jax.Array, /) -> jax.Array:
        """The first derivative by each unit's input."""

    def curvature(self, inputs: jax.Array, /) -> jax.Array:
        """The second derivative by each unit's input."""


class PooledUnits(NamedTuple):
    """Covariance units ``psi(q) = G(bias + gain q) / gain``, for the antiderivative G of an activation."""

    activation: Activation
    bias: jax.Array
    gain: float = 1.0

    def potential(self, inputs: jax.Array) -> jax.Array:
        return self.activation.potential(self.bias + self.gain * inputs) / self.gain

    def slope(self, inputs: jax.Array) -> jax.Array:
        return self.activation.slope(self.bias + self.gain * inputs)

    def curvature(self, inputs: jax.Array) -> jax.Array:
        return self.gain * self.activation.curvature(self.bias + self.gain * inputs)


class FilterEnergy(EnergyDistribution):
    """The energy above; a member names ``psi`` by ``_covariance_units`` and, if it has mean units, ``chi`` by
    ``_mean_units``: :class:`Units` of their potential and its derivatives.
    """

    normalize_visible = False
    has_mean_units = False
    filters: jax.Array
    pooling: jax.Array
    weights: jax.Array
    hidden_bias: jax.Array
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

    def _absent_parameter(self, name: str, sizes: Mapping[str, int]) -> jax.Array:
        if name == "pooling":
            return self.default_pooling * jnp.eye(sizes["filter"])
        return super()._absent_parameter(name, sizes)

    def _diagonal(self) -> jax.Array:
        """The diagonal of Lambda."""
        return jnp.ones(self.event_shape, self.dtype)

    def _linear(self) -> jax.Array:
        """The linear coefficient a."""
        return jnp.zeros(self.event_shape, self.dtype)

    def _pool(self, outputs: jax.Array) -> jax.Array:
        """One number per covariance unit from one per filter."""
        return outputs @ self.pooling if self.is_pooled else self.default_pooling * outputs

    def _unpool(self, units: jax.Array) -> jax.Array:
        """The transpose of :meth:`_pool`."""
        return self.pooling @ units if self.is_pooled else self.default_pooling * units

    def _pooled(self, value: jax.Array) -> jax.Array:
        """q, the inputs of the covariance units."""
        squares = (value @ self.filters) ** 2
        return 0.5 * self._pool(squares) / self._norm(value) if self.normalize_visible else 0.5 * self._pool(squares)

    def _norm(self, value: jax.Array) -> jax.Array:
        return jnp.mean(value**2) + 0.5

    def _mean_inputs(self, value: jax.Array) -> jax.Array:
        return value @ self.weights + self.hidden_bias

    def _quadratic(self, value: jax.Array) -> jax.Array:
        return 0.5 * (self._diagonal() @ value**2) - self._linear() @ value

    def _energy(self, value: jax.Array) -> jax.Array:
        energy = self._quadratic(value) - self._covariance_units.potential(self._pooled(value))
        return energy - self._mean_units.potential(self._mean_inputs(value)) if self.has_mean_units else energy

    def _score(self, value: jax.Array) -> jax.Array:
        pooled = self._pooled(value)
        slopes = self._covariance_units.slope(pooled)
        # rows times W', not W times columns: of these XLA's fusions on CPUs (jaxlib 0.10.2) lose rows beyond 16,384
        score = (self._unpool(slopes) * (value @ self.filters)) @ self.filters.T
        if self.normalize_visible:
            score = (score - (2 / value.size) * (slopes @ pooled) * value) / self._norm(value)
        if self.has_mean_units:
            score = score + self._mean_units.slope(self._mean_inputs(value)) @ self.weights.T
        return score + self._linear() - self._diagonal() * value

    def _laplacian(self, value: jax.Array) -> jax.Array:
        pooled = self._pooled(value)
        slopes, curvatures = self._covariance_units.slope(pooled), self._covariance_units.curvature(pooled)
        squares = self._squared_gradients(value)
        traces = self._unpool(slopes) @ (self.filters**2).sum(0)
        if self.normalize_visible:  # q is a quotient p / n, with v'grad p = 2p and n = |v|^2 / D + 1/2
            norm, ratio = self._norm(value), 4 / (value.size * self._norm(value))
            squares = squares / norm**2 - ratio * (1 + 0.5 / norm) * pooled**2
            traces = (traces - (2 + ratio) * (slopes @ pooled)) / norm
        laplacian = curvatures @ squares + traces - self._diagonal().sum()
        if self.has_mean_units:
            inputs = self._mean_inputs(value)
            laplacian = laplacian + self._mean_units.curvature(inputs) @ (self.weights**2).sum(0)
        return laplacian

    def _squared_gradients(self, value: jax.Array) -> jax.Array:
        """Squared norm of the gradient of each q_k without :meth:`_norm`, shape ``(covariance units,)``."""
        if self.is_pooled:
            return (((self.filters * (value @ self.filters)[None]) @ self.pooling) ** 2).sum(0)
        return (self.default_pooling * (value @ self.filters)) ** 2 * (self.filters**2).sum(0)


class FilterMachine(HiddenUnitEnergy, FilterEnergy):
    """Machines with covariance units, then mean units, in one hidden vector; Gaussian given these.

    A member defines ``_filter_precisions``, the weights ``d`` of the precision ``Lambda + C diag(d) C'``.
    """

    @property
    def num_covariance(self) -> int:
        """Number of hidden units that pool squared filter outputs; they come first in the hidden vector."""
        return int(jnp.shape(self.pooling)[-1])

    @property
    def num_hidden(self) -> int:
        return self.num_covariance + (int(jnp.shape(self.weights)[-1]) if self.has_mean_units else 0)

    def _filter_precisions(self, covariance_hidden: jax.Array) -> jax.Array:
        raise NotImplementedError

    def _split(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Covariance units and mean units."""
        return hidden[: self.num_covariance], hidden[self.num_covariance :]

    def _conditional_linear(self, mean_hidden: jax.Array) -> jax.Array:
        """Precision times mean of the visible units given the hidden ones."""
        return self._linear() + self.weights @ mean_hidden if self.has_mean_units else self._linear()

    def _precision(self, covariance_hidden: jax.Array) -> jax.Array:
        return (
            jnp.diag(self._diagonal())
            + (self.filters * self._filter_precisions(covariance_hidden)[None]) @ self.filters.T
        )

    def _conditional(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        covariance_hidden, mean_hidden = self._split(hidden)
        precision = self._precision(covariance_hidden)
        return jnp.linalg.solve(precision, self._conditional_linear(mean_hidden)), precision

    def _visible_distribution(self, hidden: jax.Array) -> dist.Distribution:
        loc, precision = self._map(type(self)._conditional, hidden)
        return dist.MultivariateNormal(loc, precision_matrix=precision, validate_args=False)

    def _sample_given_hidden(self, rng_key: Key, hidden: jax.Array) -> jax.Array:
        noise = jax.random.normal(rng_key, hidden.shape[:-1] + self.event_shape, self.dtype)
        return self._map(type(self)._draw_visible, noise, hidden)

    def _draw_visible(self, noise: jax.Array, hidden: jax.Array) -> jax.Array:
        covariance_hidden, mean_hidden = self._split(hidden)
        precisions = self._filter_precisions(covariance_hidden)
        root = jnp.sqrt(self._diagonal())
        linear = self._conditional_linear(mean_hidden) / root
        return structured_normal(noise, self.filters / root[:, None], precisions, linear) / root

    def initial(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        """Draws of the machine without covariance units, ``Normal((a + W h) / Lambda, Lambda^-1)``, where another share
        of the mean units is on in every chain.
        """
        key_hidden, key_noise = jax.random.split(rng_key)
        hidden = dispersed_states(key_hidden, shape, self.num_hidden - self.num_covariance, self.dtype)
        return self._map(
            type(self)._draw_base, jax.random.normal(key_noise, shape + self.event_shape, self.dtype), hidden
        )

    def _draw_base(self, noise: jax.Array, mean_hidden: jax.Array) -> jax.Array:
        return self._conditional_linear(mean_hidden) / self._diagonal() + noise / jnp.sqrt(self._diagonal())


def structured_normal(noise: jax.Array, filters: jax.Array, weights: jax.Array, linear: jax.Array) -> jax.Array:
    """``L^-1 linear + L^-1/2 noise`` for ``L = I + filters diag(weights) filters'``, so that noise becomes a draw.

    With fewer filters than dimensions the precision differs from the identity in the filters' span only, and the matrix
    that is factored has one row for each filter.

    :param noise: standard normal, shape ``(D,)``.
    :param filters: shape ``(D, F)``; they do not depend on the weights, so one QR factorisation serves many draws.
    :param weights: shape ``(F,)``, of any sign that leaves L positive definite.
    :param linear: shape ``(D,)``.
    """
    size, num_filters = filters.shape
    if num_filters >= size:
        lower = jnp.linalg.cholesky(jnp.eye(size, dtype=filters.dtype) + (filters * weights[None]) @ filters.T)
        return solve_triangular(lower, solve_triangular(lower, linear, lower=True) + noise, lower=True, trans=1)
    basis, root = jnp.linalg.qr(filters)
    inside = structured_normal(noise @ basis, root, weights, linear @ basis)
    outside = linear + noise
    return outside + basis @ (inside - outside @ basis)
