"""Machines with Gamma hidden units, which are precisions: what products of Student-t distributions share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from numpyro.distributions import constraints

from numpyro_ebm.distributions.parts.filters import FilterMachine, Units
from numpyro_ebm.sampling.types import Key

_LARGE = 30.0  # from where four terms of the asymptotic series hold all digits


class StudentUnits(NamedTuple):
    """Covariance units ``psi(q) = log Gamma(gamma) - gamma log(1 + q)``."""

    concentration: jax.Array

    def potential(self, inputs: jax.Array) -> jax.Array:
        return (gammaln(self.concentration) - self.concentration * jnp.log1p(inputs)).sum()

    def slope(self, inputs: jax.Array) -> jax.Array:
        return -self.concentration / (1 + inputs)

    def curvature(self, inputs: jax.Array) -> jax.Array:
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
    concentration: jax.Array

    @property
    def _covariance_units(self) -> Units:
        return StudentUnits(self.concentration)

    def _filter_precisions(self, covariance_hidden: jax.Array) -> jax.Array:
        return self._unpool(covariance_hidden)

    def _rates(self, value: jax.Array) -> jax.Array:
        """Rates of the Gamma units given the value."""
        return 1 + self._pooled(value)

    def _precision_energy(self, precisions: jax.Array, rates: jax.Array) -> jax.Array:
        """What the Gamma units add to the joint energy."""
        return precisions @ rates + (1 - self.concentration) @ jnp.log(precisions)

    def _precision_distribution(self, rates: jax.Array) -> dist.Distribution:
        return dist.Gamma(self._concentration_like(rates), rates, validate_args=False).to_event(1)

    def _sample_precisions(self, rng_key: Key, rates: jax.Array) -> jax.Array:
        return jax.random.gamma(rng_key, self._concentration_like(rates), rates.shape, self.dtype) / rates

    def _concentration_like(self, rates: jax.Array) -> jax.Array:
        shape = (1,) * (rates.ndim - self.concentration.ndim) + self.concentration.shape
        return self.concentration.reshape(shape)


def log_gamma_ratio(concentration: jax.Array) -> jax.Array:
    """``log Gamma(gamma) - log Gamma(gamma - 1/2)``, which large gammas would cancel; -inf for gamma up to 1/2."""
    has_integral = concentration > 0.5
    excess = jnp.where(has_integral, concentration - 0.5, 1.0)
    large = jnp.maximum(excess, _LARGE)
    series = 0.5 * jnp.log(large) - 1 / (8 * large) + 1 / (192 * large**3) - 1 / (640 * large**5)
    small = jnp.minimum(excess, _LARGE)
    ratio = jnp.where(excess < _LARGE, gammaln(small + 0.5) - gammaln(small), series)
    return jnp.where(has_integral, ratio, -jnp.inf)
