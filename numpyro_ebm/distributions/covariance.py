"""Covariance and mean-covariance restricted Boltzmann machines: hidden units that set correlations between pixels."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import logsumexp
from numpyro.distributions import constraints

from numpyro_ebm.distributions.activations import ACTIVATIONS
from numpyro_ebm.distributions.bipartite import sample_index
from numpyro_ebm.distributions.filters import LOG_2PI, FilterMachine
from numpyro_ebm.distributions.partition import MAX_ENUMERATED_TERMS, binary_states, enumerate_terms
from numpyro_ebm.distributions.properness import check_conditional_precisions, single_models
from numpyro_ebm.distributions.rbm import bernoulli_units
from numpyro_ebm.infer.bernoulli import bernoulli_from_logits
from numpyro_ebm.infer.samplers import Hamiltonian, Sampler

_SIGMOID = ACTIVATIONS["sigmoid"]


class _BinaryFilterMachine(FilterMachine):
    """Binary covariance units and, where there are any, binary mean units."""

    option_defaults = {"normalize_visible": False}
    covariance_bias: jax.Array
    visible_bias: jax.Array

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
        beta = jnp.asarray(inverse_temperature, self.dtype)
        return self._with(**{name: beta * getattr(self, name) for name in names}, log_partition=None)

    def _check_proper(self) -> None:
        if self.normalize_visible:  # the covariance units are bounded, and any quadratic form outweighs them
            return
        names = [name for name in ("filters", "pooling", "precision") if name in self.parameter_dims]
        for filters, pooling, *diagonal in single_models(self, names):
            check_conditional_precisions(type(self).__name__, filters, pooling, diagonal[0] if diagonal else 1.0)

    def _linear(self) -> jax.Array:
        return self.visible_bias

    def _covariance_units(self, pooled: jax.Array, order: int) -> jax.Array:
        return _SIGMOID.units(self.covariance_bias + pooled, order)

    def _mean_units(self, inputs: jax.Array, order: int) -> jax.Array:
        return _SIGMOID.units(inputs, order)

    def _filter_precisions(self, covariance_hidden: jax.Array) -> jax.Array:
        if self.normalize_visible:
            raise TypeError(
                f"normalize_visible: {type(self).__name__} expected False for visible units given hidden ones, got "
                "True: visible units that are normalised inside the covariance units are not Gaussian given these"
            )
        return -self._unpool(covariance_hidden)

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        covariance_input = self.covariance_bias + self._pooled(value)
        return (
            jnp.concatenate([covariance_input, self._mean_inputs(value)]) if self.has_mean_units else covariance_input
        )

    def _joint_energy(self, value: jax.Array, hidden: jax.Array) -> jax.Array:
        return self._quadratic(value) - hidden @ self._hidden_input(value)

    _hidden_distribution = staticmethod(bernoulli_units)
    _sample_hidden = staticmethod(bernoulli_from_logits)

    @property
    def has_gibbs_step(self) -> bool:
        return not self.normalize_visible

    def _mean_matrix(self) -> jax.Array:
        """The linear coefficients that the mean units' states multiply, shape ``(D, mean units)``."""
        return self.weights if self.has_mean_units else jnp.zeros((*self.event_shape, 0), self.dtype)

    def _mean_states(self) -> jax.Array:
        return binary_states(self.num_hidden - self.num_covariance, self.dtype)

    def _log_terms(self) -> jax.Array:
        """Unnormalised log-weight of every Gaussian of the mixture, covariance units slowest."""
        states = self._mean_states()
        inputs = states @ self.hidden_bias if self.has_mean_units else jnp.zeros(1, self.dtype)
        columns = jnp.concatenate([self._linear()[:, None], self._mean_matrix()], axis=1)
        coefficients = jnp.concatenate([jnp.ones((len(states), 1), self.dtype), states], axis=1)

        def log_term(state: jax.Array) -> jax.Array:
            lower = jnp.linalg.cholesky(self._precision(state))
            solved = solve_triangular(lower, columns, lower=True)
            exponents = 0.5 * ((coefficients @ (solved.T @ solved)) * coefficients).sum(-1)
            return self.covariance_bias @ state - jnp.log(jnp.diagonal(lower)).sum() + inputs + exponents

        return enumerate_terms(jax.vmap(log_term), self.num_covariance, self.dtype).reshape(-1)

    def _exact_log_partition(self) -> jax.Array:
        return 0.5 * self.event_shape[0] * LOG_2PI + logsumexp(self._log_terms())

    def _base_log_partition(self) -> jax.Array:
        diagonal = self._diagonal()
        gaussian = self._linear() ** 2 / diagonal - jnp.log(diagonal) + LOG_2PI
        return 0.5 * gaussian.sum() + self.num_hidden * math.log(2)

    def _exact_moments(self) -> tuple[jax.Array, jax.Array]:
        """Mean and second moment of the mixture, one state of the covariance units at a time."""
        states = self._mean_states()
        linear = self._linear()[None] + states @ self._mean_matrix().T
        probability = jax.nn.softmax(self._log_terms()).reshape(-1, len(states))

        def add(total: Any, inputs: Any) -> tuple[Any, None]:
            state, weight = inputs
            lower = jnp.linalg.cholesky(self._precision(state))
            identity = jnp.eye(len(lower), dtype=self.dtype)
            covariance = cho_solve((lower, True), identity)
            means = linear @ covariance
            second = weight.sum() * covariance + means.T @ (weight[:, None] * means)
            return (total[0] + weight @ means, total[1] + second), None

        zero = jnp.zeros(self.event_shape, self.dtype)
        moments, _ = lax.scan(
            add, (zero, zero[:, None] * zero[None]), (binary_states(self.num_covariance, self.dtype), probability)
        )
        return moments

    def _exact_mean(self) -> jax.Array:
        return self._exact_moments()[0]

    def _exact_covariance(self) -> jax.Array:
        mean, second = self._exact_moments()
        return second - jnp.outer(mean, mean)

    def _exact_sample(self, rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        key_state, key_visible = jax.random.split(rng_key)
        index = sample_index(key_state, self._map(type(self)._log_terms), shape)
        return self._sample_given_hidden(key_visible, binary_states(self.num_hidden, self.dtype)[index])


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

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import CovarianceRBM
    >>> crbm = CovarianceRBM(jnp.eye(2), pooling=-3 * jnp.ones((2, 1)), covariance_bias=20.0)
    >>> print(crbm.variance)
    [0.25 0.25]
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
    precision: jax.Array

    def _diagonal(self) -> jax.Array:
        return self.precision


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

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import MeanCovarianceRBM
    >>> mcrbm = MeanCovarianceRBM(jnp.eye(2), -jnp.ones((2, 1)), jnp.array([[1.0], [0.0]]))
    >>> mcrbm.sample(jax.random.key(0), (4,)).shape
    (4, 2)
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
