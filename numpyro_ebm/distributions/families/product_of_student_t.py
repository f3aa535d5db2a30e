"""Products of Student-t distributions: heavy-tailed filters whose Gamma hidden units are precisions."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln
from jax.typing import ArrayLike

from _ppl_ebm.normals import LOG_2PI
from _ppl_ebm.properness import check_student_tails
from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.student import StudentMachine, log_gamma_ratio
from numpyro_ebm.sampling.protocols import Sampler
from numpyro_ebm.sampling.types import Key


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

    def _diagonal(self) -> jax.Array:
        return jnp.zeros(self.event_shape, self.dtype)

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return self._rates(value)

    def _joint_energy(self, value: jax.Array, hidden: jax.Array) -> jax.Array:
        return self._precision_energy(hidden, self._rates(value))

    def _hidden_distribution(self, inputs: jax.Array) -> dist.Distribution:
        return self._precision_distribution(inputs)

    def _sample_hidden(self, rng_key: Key, inputs: jax.Array) -> jax.Array:
        return self._sample_precisions(rng_key, inputs)

    def _draw_visible(self, noise: jax.Array, hidden: jax.Array) -> jax.Array:
        lower = jnp.linalg.cholesky(self._precision(hidden))
        return solve_triangular(lower, noise, lower=True, trans=1)

    def initial(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.normal(rng_key, shape + self.event_shape, self.dtype)

    def _exact_log_partition(self) -> jax.Array:
        log_det = jnp.linalg.slogdet(self.filters)[1]
        has_integral = self.concentration > 0.5  # only traced parameters are not checked before
        excess = jnp.where(has_integral, self.concentration - 0.5, 1.0)
        log_gamma = jnp.where(has_integral, gammaln(excess), jnp.inf).sum()
        return 0.5 * self.event_shape[0] * LOG_2PI + log_gamma - log_det

    def exact_log_prob(self, value: jax.Array, energy: jax.Array) -> jax.Array:
        """Without ``log Gamma`` of the concentrations, which is in the energy and in log Z and far larger than both."""
        del energy
        return self._map(type(self)._exact_log_prob, value)

    def _exact_log_prob(self, value: jax.Array) -> jax.Array:
        log_det = jnp.linalg.slogdet(self.filters)[1]
        ratio = log_gamma_ratio(self.concentration).sum() + log_det - 0.5 * self.event_shape[0] * LOG_2PI
        return ratio - self.concentration @ jnp.log1p(self._pooled(value))

    def _exact_mean(self) -> jax.Array:
        return jnp.where(self.concentration.min() > 1, jnp.zeros(self.event_shape, self.dtype), jnp.nan)

    def _exact_covariance(self) -> jax.Array:
        excess = jnp.where(self.concentration > 1.5, 2 * self.concentration - 3, jnp.nan)
        inverse = jnp.linalg.inv(self.filters)
        return (inverse.T * (2 / excess)[None]) @ inverse

    def exact_sample(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        freedom = 2 * self.concentration - 1
        freedom = freedom.reshape((1,) * (len(shape) + 1 - freedom.ndim) + freedom.shape)
        student = jax.random.t(rng_key, freedom, shape + self.event_shape, self.dtype)
        return self._map(lambda pot, t: jnp.linalg.solve(pot.filters.T, t), student * jnp.sqrt(2 / freedom))
