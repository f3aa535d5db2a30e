"""Products of Student-t distributions: heavy-tailed filters whose Gamma hidden units are precisions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln
from numpyro.distributions import constraints

from numpyro_ebm.distributions.activations import ACTIVATIONS
from numpyro_ebm.distributions.concatenated import Concatenated
from numpyro_ebm.distributions.filters import LOG_2PI, FilterMachine
from numpyro_ebm.distributions.properness import check_student_tails, single_models
from numpyro_ebm.distributions.rbm import bernoulli_units
from numpyro_ebm.infer.bernoulli import bernoulli_from_logits

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

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import ProductOfStudentT
    >>> pot = ProductOfStudentT(jnp.array([[1.0, 0.0], [1.0, 2.0]]), concentration=3.0)
    >>> pot.sample(jax.random.key(0), (4,)).shape
    (4, 2)
    >>> [round(float(variance), 3) for variance in pot.variance]
    [0.833, 0.167]
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
    concentration: jax.Array

    @property
    def is_pooled(self) -> bool:
        """Whether ``pooling`` was given."""
        return "pooling" not in self._absent

    @property
    def has_exact_partition(self) -> bool:
        return not self.is_pooled and self.num_covariance == self.event_shape[0]

    def _default_parameter(self, name: str, sizes: Any) -> jax.Array:
        return jnp.eye(sizes["filter"]) if name == "pooling" else super()._default_parameter(name, sizes)

    def _check_proper(self) -> None:
        for model in single_models(self, ("filters", "pooling", "concentration")):
            check_student_tails(type(self).__name__, *model)

    def _diagonal(self) -> jax.Array:
        return jnp.zeros(self.event_shape, self.dtype)

    def _pool(self, outputs: jax.Array) -> jax.Array:
        return super()._pool(outputs) if self.is_pooled else outputs

    def _unpool(self, units: jax.Array) -> jax.Array:
        return super()._unpool(units) if self.is_pooled else units

    def _squared_gradients(self, value: jax.Array) -> jax.Array:
        if self.is_pooled:
            return super()._squared_gradients(value)
        return (value @ self.filters) ** 2 * (self.filters**2).sum(0)

    def _covariance_units(self, pooled: jax.Array, order: int) -> jax.Array:
        if order == 0:
            return (gammaln(self.concentration) - self.concentration * jnp.log1p(pooled)).sum()
        return -self.concentration / (1 + pooled) if order == 1 else self.concentration / (1 + pooled) ** 2

    def _filter_precisions(self, covariance_hidden: jax.Array) -> jax.Array:
        return self._unpool(covariance_hidden)

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return 1 + self._pooled(value)

    def _joint_energy(self, value: jax.Array, hidden: jax.Array) -> jax.Array:
        return hidden @ self._hidden_input(value) + (1 - self.concentration) @ jnp.log(hidden)

    def _hidden_distribution(self, rates: jax.Array) -> dist.Distribution:
        return dist.Gamma(self._concentration_like(rates), rates, validate_args=False).to_event(1)

    def _sample_hidden(self, rng_key: jax.Array, rates: jax.Array) -> jax.Array:
        return jax.random.gamma(rng_key, self._concentration_like(rates), rates.shape, self.dtype) / rates

    def _concentration_like(self, rates: jax.Array) -> jax.Array:
        shape = (1,) * (rates.ndim - self.concentration.ndim) + self.concentration.shape
        return self.concentration.reshape(shape)

    def _draw_visible(self, noise: jax.Array, hidden: jax.Array) -> jax.Array:
        lower = jnp.linalg.cholesky(self._precision(hidden))
        return solve_triangular(lower, noise, lower=True, trans=1)

    def _initial(self, rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.normal(rng_key, shape + self.event_shape, self.dtype)

    def _exact_log_partition(self) -> jax.Array:
        log_det = jnp.linalg.slogdet(self.filters)[1]
        return 0.5 * self.event_shape[0] * LOG_2PI + gammaln(self.concentration - 0.5).sum() - log_det

    def _exact_mean(self) -> jax.Array:
        return jnp.where(self.concentration.min() > 1, jnp.zeros(self.event_shape, self.dtype), jnp.nan)

    def _exact_covariance(self) -> jax.Array:
        excess = jnp.where(self.concentration > 1.5, 2 * self.concentration - 3, jnp.nan)
        inverse = jnp.linalg.inv(self.filters)
        return (inverse.T * (2 / excess)[None]) @ inverse

    def _exact_sample(self, rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        freedom = 2 * self.concentration - 1
        freedom = freedom.reshape((1,) * (len(shape) + 1 - freedom.ndim) + freedom.shape)
        student = jax.random.t(rng_key, freedom, shape + self.event_shape, self.dtype)
        return self._map(lambda pot, t: jnp.linalg.solve(pot.filters.T, t), student * jnp.sqrt(2 / freedom))


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

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import MeanProductOfStudentT
    >>> mpot = MeanProductOfStudentT(jnp.ones((2, 1)), jnp.array([[1.0], [-1.0]]), concentration=2.0)
    >>> mpot.sample(jax.random.key(0), (4,)).shape
    (4, 2)
    >>> print(mpot.score(jnp.zeros(2)))
    [ 0.5 -0.5]
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
    visible_bias: jax.Array

    @property
    def has_exact_partition(self) -> bool:
        return False

    def annealed(self, inverse_temperature: Any) -> Any:
        """The family's path from independent visible units (0) to this distribution (1).

        Squared filter outputs, weights and hidden biases are multiplied by ``inverse_temperature``.
        """
        beta = jnp.asarray(inverse_temperature, self.dtype)
        return self._with(
            filters=jnp.sqrt(beta) * self.filters,
            weights=beta * self.weights,
            hidden_bias=beta * self.hidden_bias,
            log_partition=None,
        )

    def _check_proper(self) -> None:
        """The quadratic form outweighs the mean units, and the covariance units only help."""

    def _diagonal(self) -> jax.Array:
        return FilterMachine._diagonal(self)

    def _linear(self) -> jax.Array:
        return self.visible_bias

    def _mean_units(self, inputs: jax.Array, order: int) -> jax.Array:
        return _SIGMOID.units(inputs, order)

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return jnp.concatenate([1 + self._pooled(value), self._mean_inputs(value)])

    def _joint_energy(self, value: jax.Array, hidden: jax.Array) -> jax.Array:
        precisions, means = self._split(hidden)
        energy = precisions @ (1 + self._pooled(value)) + (1 - self.concentration) @ jnp.log(precisions)
        return energy + self._quadratic(value) - means @ self._mean_inputs(value)

    def _split_inputs(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        return inputs[..., : self.num_covariance], inputs[..., self.num_covariance :]

    def _hidden_distribution(self, inputs: jax.Array) -> dist.Distribution:
        rates, logits = self._split_inputs(inputs)
        return Concatenated(super()._hidden_distribution(rates), bernoulli_units(logits))

    def _sample_hidden(self, rng_key: jax.Array, inputs: jax.Array) -> jax.Array:
        key_gamma, key_mean = jax.random.split(rng_key)
        rates, logits = self._split_inputs(inputs)
        means = bernoulli_from_logits(key_mean, logits)
        return jnp.concatenate([super()._sample_hidden(key_gamma, rates), means], axis=-1)

    _draw_visible = FilterMachine._draw_visible
    _initial = FilterMachine._initial

    def _base_log_partition(self) -> jax.Array:
        gaussian = 0.5 * (self.visible_bias**2 + LOG_2PI).sum() + gammaln(self.concentration).sum()
        return gaussian + self.weights.shape[-1] * math.log(2)
