"""The mean-covariance autoencoder as an energy."""

import torch
from torch.distributions import constraints

from pyro_ebm.distributions.families.covariance_autoencoder import CovarianceAutoencoder
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.activations import Activation, resolve_activation
from pyro_ebm.distributions.parts.autoencoder import FilterAutoencoder
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.types import ArrayLike

_MATRIX = constraints.independent(constraints.real, 2)


class MeanCovarianceAutoencoder(FilterAutoencoder):
    r"""Mean-covariance autoencoder: :class:`CovarianceAutoencoder` and tied mean units together (Im & Taylor 2015).

    .. math::

        r(y) = C \big((C^\top y) \odot P g(u)\big) + W g(W^\top y + c) + a, \qquad
        F(y) = \frac1T \Big( \tfrac12 |y - a|^2 - \tfrac12 \sum_k G(u_k) - \sum_j G(c_j + w_j^\top y) \Big)

    with ``u`` as there and a single quadratic term (two, in print, would count it twice). With sigmoid units
    ``F(y) = F_mcRBM(sqrt(2) y) / 2 + |a|^2 / 2`` for the :class:`MeanCovarianceRBM` with the same filters, pooling and
    covariance biases, every mean unit twice with weights ``w / sqrt(2)``, and visible biases ``sqrt(2) a``.

    :param filters: C, shape ``(..., visible, filter)``.
    :param weights: W, shape ``(..., visible, hidden)``.
    :param pooling: P, shape ``(..., filter, covariance)``; default: a unit for each filter, with weight -1.
    :param covariance_bias: b, shape ``(..., covariance)`` or a scalar; default 0.
    :param hidden_bias: c, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param temperature: T, shape ``(...,)``; for a denoising autoencoder the noise **variance**; default 1.
    :param activation: g by name or an ``Activation``, for both kinds of units.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration; default ``Hamiltonian()``.
    :raises ImproperDensityError: if the units' growth outweighs the quadratic term in some direction.

    >>> import torch
    >>> from pyro_ebm import MeanCovarianceAutoencoder
    >>> autoencoder = MeanCovarianceAutoencoder(torch.eye(2), torch.ones(2, 1), pooling=-torch.ones(2, 1))
    >>> [round(float(component), 3) for component in autoencoder.field(torch.tensor([1.0, 0.0]))]
    [-0.538, 0.731]
    """

    parameter_dims = {
        "filters": ("visible", "filter"),
        "pooling": ("filter", "covariance"),
        "weights": ("visible", "hidden"),
        "covariance_bias": ("covariance",),
        "hidden_bias": ("hidden",),
        "visible_bias": ("visible",),
        "temperature": (),
    }
    arg_constraints = {
        **CovarianceAutoencoder.arg_constraints,
        "weights": _MATRIX,
        "hidden_bias": constraints.real_vector,
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
            "weights": weights,
            "pooling": pooling,
            "covariance_bias": covariance_bias,
            "hidden_bias": hidden_bias,
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

    def _encode(self, value: torch.Tensor) -> torch.Tensor:
        inputs = self._covariance_input(value), self._mean_inputs(value)
        return torch.cat([self.activation.function(part) for part in inputs], -1)
