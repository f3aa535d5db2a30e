"""The covariance restricted Boltzmann machine: hidden units that set correlations between pixels."""

import jax
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from _ppl_ebm.checks import check_flag
from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.binary_filters import BinaryFilterMachine
from numpyro_ebm.sampling.protocols import Sampler


class CovarianceRBM(BinaryFilterMachine):
    r"""Covariance restricted Boltzmann machine (Ranzato, Krizhevsky & Hinton 2010, eq. 2; Ranzato & Hinton 2010).

    .. math::

        F(v) = \tfrac12 v^\top \Lambda v - a^\top v
               - \sum_k \mathrm{softplus}\Big(b_k + \tfrac12 \sum_f P_{fk} (C_f^\top v)^2\Big)

    Given its binary hidden units ``h``, ``v`` is Gaussian with the precision ``Lambda - C diag(P h) C'``: with
    ``P <= 0`` an active unit forbids variation along its filters, and large variation switches it off. Proper while
    that precision is positive definite for every ``h``; with ``P <= 0`` it always is. Exact density, moments and draws
    while ``covariance <= 16``.

    :param filters: C, shape ``(..., visible, filter)``.
    :param pooling: P, shape ``(..., filter, covariance)``; default: a unit for each filter, with weight -1.
    :param covariance_bias: b, shape ``(..., covariance)`` or a scalar; default 0.
    :param visible_bias: a, the linear coefficient (not the mean), shape ``(..., visible)`` or a scalar; default 0.
    :param precision: the diagonal of Lambda, inverse variances, shape ``(..., visible)`` or a scalar; default 1.
    :param normalize_visible: divide ``v`` by ``sqrt(mean(v^2) + 0.5)`` inside the covariance units (Ranzato & Hinton
        2010, section 3.1). ``v`` given ``h`` is then not Gaussian: draws are by ``Hamiltonian()``, and there is no
        exact partition function; the density is proper for every ``P``.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
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
    arg_constraints = {
        "filters": constraints.independent(constraints.real, 2),
        "pooling": constraints.independent(constraints.real, 2),
        "covariance_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
        "precision": constraints.independent(constraints.positive, 1),
    }
    precision: jax.Array

    def __init__(
        self,
        filters: ArrayLike,
        *,
        pooling: ArrayLike | None = None,
        covariance_bias: ArrayLike = 0.0,
        visible_bias: ArrayLike = 0.0,
        precision: ArrayLike = 1.0,
        normalize_visible: bool = False,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.normalize_visible = check_flag("normalize_visible", normalize_visible)
        parameters = {
            "filters": filters,
            "pooling": pooling,
            "covariance_bias": covariance_bias,
            "visible_bias": visible_bias,
            "precision": precision,
        }
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    def _diagonal(self) -> jax.Array:
        return self.precision
