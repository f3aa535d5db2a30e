"""The covariance autoencoder as an energy."""

from torch.distributions import constraints

from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.activations import Activation, resolve_activation
from pyro_ebm.distributions.parts.autoencoder import FilterAutoencoder
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.types import ArrayLike

_MATRIX = constraints.independent(constraints.real, 2)


class CovarianceAutoencoder(FilterAutoencoder):
    r"""Covariance autoencoder: a gated autoencoder of ``y`` given itself (Memisevic 2011; Im & Taylor 2015, section 5).

    .. math::

        u_k = b_k + \sum_f P_{fk} (C_f^\top y)^2, \qquad r(y) = C \big((C^\top y) \odot P g(u)\big) + a, \qquad
        F(y) = \frac1T \Big( \tfrac12 |y - a|^2 - \tfrac12 \sum_k G(u_k) \Big), \quad G' = g

    The factor 1/2 before G, missing in print, is what makes ``r(y) - y`` the gradient of ``-F``. With sigmoid units
    ``F(y) = F_cRBM(sqrt(2) y) / 2 + |a|^2 / 2`` for the :class:`CovarianceRBM` with the same filters, pooling and
    biases (``sqrt(2) a`` for the visible ones): the machine at temperature 2. The partition function is not known.

    :param filters: C, shape ``(..., visible, filter)``.
    :param pooling: P, shape ``(..., filter, covariance)``; default: a unit for each filter, with weight -1.
    :param covariance_bias: b, shape ``(..., covariance)`` or a scalar; default 0.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param temperature: T, shape ``(...,)``; for a denoising autoencoder the noise **variance**; default 1.
    :param activation: g by name or an ``Activation``.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration; default ``Hamiltonian()``.
    :raises ImproperDensityError: if the units' growth outweighs the quadratic term in some direction.

    >>> import torch
    >>> from pyro_ebm import CovarianceAutoencoder
    >>> autoencoder = CovarianceAutoencoder(torch.eye(2), pooling=-torch.ones(2, 1))
    >>> print(autoencoder.field(torch.tensor([1.0, 0.0])))
    tensor([-1.2689,  0.0000])
    """

    parameter_dims = {
        "filters": ("visible", "filter"),
        "pooling": ("filter", "covariance"),
        "covariance_bias": ("covariance",),
        "visible_bias": ("visible",),
        "temperature": (),
    }
    arg_constraints = {
        "filters": _MATRIX,
        "pooling": _MATRIX,
        "covariance_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
        "temperature": constraints.positive,
    }

    def __init__(
        self,
        filters: ArrayLike,
        *,
        pooling: ArrayLike | None = None,
        covariance_bias: ArrayLike = 0.0,
        visible_bias: ArrayLike = 0.0,
        temperature: ArrayLike | None = None,
        activation: str | Activation = "sigmoid",
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.activation = resolve_activation(activation)
        parameters = {
            "filters": filters,
            "pooling": pooling,
            "covariance_bias": covariance_bias,
            "visible_bias": visible_bias,
            "temperature": temperature,
        }
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )
