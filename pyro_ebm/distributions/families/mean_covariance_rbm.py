"""The mean-covariance restricted Boltzmann machine."""

from torch.distributions import constraints

from _ppl_ebm.checks import check_flag
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.binary_filters import BinaryFilterMachine
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.types import ArrayLike


class MeanCovarianceRBM(BinaryFilterMachine):
    r"""Mean-covariance restricted Boltzmann machine (Ranzato & Hinton 2010, eqs. 5 to 8).

    .. math::

        F(v) = \tfrac12 v^\top v - a^\top v - \sum_k \mathrm{softplus}\Big(b_k + \tfrac12 \sum_f P_{fk}
               (C_f^\top v)^2\Big) - \sum_j \mathrm{softplus}(c_j + w_j^\top v)

    The hidden vector is the covariance units, then the mean units. Given both, ``v`` is Gaussian with precision
    ``L = I - C diag(P h_cov) C'`` and mean ``L^-1 (a + W h_mean)``. Proper while L is positive definite for every state
    of the covariance units. Exact density, moments and draws while there are at most 16 hidden units together.

    :param filters: C, shape ``(..., visible, filter)``.
    :param weights: W, shape ``(..., visible, hidden)``.
    :param pooling: P, shape ``(..., filter, covariance)``; default: a unit for each filter, with weight -1.
    :param covariance_bias: b, shape ``(..., covariance)`` or a scalar; default 0.
    :param hidden_bias: c, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: a, the linear coefficient (not the mean), shape ``(..., visible)`` or a scalar; default 0.
    :param normalize_visible: as in :class:`CovarianceRBM`.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration; default: exact where possible, else ``Gibbs()``.
    :raises ImproperDensityError: if some state of the covariance units leaves an L that is not positive definite.

    >>> import torch
    >>> from pyro_ebm import MeanCovarianceRBM
    >>> mcrbm = MeanCovarianceRBM(torch.eye(2), torch.tensor([[1.0], [0.0]]), pooling=-torch.ones(2, 1))
    >>> mcrbm.sample((4,)).shape
    torch.Size([4, 2])
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
    arg_constraints = {
        "filters": constraints.independent(constraints.real, 2),
        "pooling": constraints.independent(constraints.real, 2),
        "weights": constraints.independent(constraints.real, 2),
        "covariance_bias": constraints.real_vector,
        "hidden_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
    }
    has_mean_units = True

    def __init__(
        self,
        filters: ArrayLike,
        weights: ArrayLike,
        *,
        pooling: ArrayLike | None = None,
        covariance_bias: ArrayLike = 0.0,
        hidden_bias: ArrayLike = 0.0,
        visible_bias: ArrayLike = 0.0,
        normalize_visible: bool = False,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.normalize_visible = check_flag("normalize_visible", normalize_visible)
        parameters = {
            "filters": filters,
            "weights": weights,
            "pooling": pooling,
            "covariance_bias": covariance_bias,
            "hidden_bias": hidden_bias,
            "visible_bias": visible_bias,
        }
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )
