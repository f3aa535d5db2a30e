"""The restricted Boltzmann machine with Gaussian units."""

import pyro.distributions as dist
import torch

from _ppl_ebm.errors import ImproperDensityError
from _ppl_ebm.normals import LOG_2PI
from pyro_ebm.distributions.batching import cholesky, linear
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.bipartite import RestrictedBoltzmannMachine, normal_units, sample_unit_normal
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.types import ArrayLike


class GaussianRBM(RestrictedBoltzmannMachine):
    r"""Restricted Boltzmann machine with Gaussian visible and Gaussian hidden units of unit conditional variance.

    .. math::

        E(v, h) = \tfrac12 v^\top v + \tfrac12 h^\top h - v^\top W h - a^\top v - b^\top h

    The marginal is ``Normal((I - W W')^-1 (a + W b), (I - W W')^-1)``, probabilistic PCA with unit noise in other
    parameters (Williams & Agakov 2002). **Proper only while the spectral norm of W is below one**; anything else is
    refused at construction where arguments are validated, and gives NaN densities where they are not.

    :param weights: W, shape ``(..., visible, hidden)``, spectral norm below 1.
    :param visible_bias: a, the linear coefficient (not the mean), shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param log_partition: normaliser policy; ``"auto"`` is exact.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration; default ``Exact()``.
    :raises ImproperDensityError: if the spectral norm of ``weights`` is not below one.

    >>> import torch
    >>> from pyro_ebm import GaussianRBM
    >>> print(GaussianRBM(torch.tensor([[0.6], [0.0]])).variance)
    tensor([1.5625, 1.0000])
    """

    def __init__(
        self,
        weights: ArrayLike,
        *,
        visible_bias: ArrayLike = 0.0,
        hidden_bias: ArrayLike = 0.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        parameters = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    @property
    def has_exact_partition(self) -> bool:
        return True

    def _check_proper(self) -> None:
        norm = torch.linalg.matrix_norm(self.weights.detach().double(), ord=2).max().item()
        if not norm < 1:
            raise ImproperDensityError(
                f"weights: GaussianRBM expected a spectral norm below 1, got {norm:.6g}: exp(-energy) has no integral"
            )

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        quadratic = 0.5 * ((value**2).sum(-1) + (hidden**2).sum(-1))
        return quadratic - (self._hidden_input(value) * hidden).sum(-1) - (self.visible_bias * value).sum(-1)

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        quadratic = (value**2).sum(-1) - (self._hidden_input(value) ** 2).sum(-1)
        return 0.5 * (quadratic - self.num_hidden * LOG_2PI) - (self.visible_bias * value).sum(-1)

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        return self._visible_input(self._hidden_input(value)) - value

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        return ((self.weights**2).sum((-2, -1)) - self.event_shape[0]).expand(value.shape[:-1])

    def parameter_gradient(self, value: torch.Tensor, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self._hidden_input(value) * coefficients[:, None]
        return {"weights": value.mT @ hidden, "visible_bias": coefficients @ value, "hidden_bias": hidden.sum(0)}

    def _hidden_distribution(self, inputs: torch.Tensor) -> dist.TorchDistribution:
        return normal_units(inputs)

    def _sample_hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        return sample_unit_normal(inputs)

    def _visible_units(self, inputs: torch.Tensor) -> dist.TorchDistribution:
        return normal_units(inputs)

    def _sample_visible(self, inputs: torch.Tensor) -> torch.Tensor:
        return sample_unit_normal(inputs)

    def _cholesky(self) -> torch.Tensor:
        """Lower Cholesky factor of ``I - W'W``; by Woodbury, ``(I - WW')^-1 = I + W (I - W'W)^-1 W'``."""
        eye = torch.eye(self.num_hidden, dtype=self.dtype, device=self.device)
        return cholesky(eye - self.weights.mT @ self.weights)

    def _exact_mean(self) -> torch.Tensor:
        constant = self._visible_input(self.hidden_bias)
        solved = torch.cholesky_solve(linear(constant, self.weights).unsqueeze(-1), self._cholesky()).squeeze(-1)
        return linear(solved, self.weights.mT, constant)

    def _exact_log_partition(self) -> torch.Tensor:
        units = self.event_shape[0] + self.num_hidden
        log_det = 2 * torch.log(torch.diagonal(self._cholesky(), dim1=-2, dim2=-1)).sum(-1)
        exponent = (self._visible_input(self.hidden_bias) * self._exact_mean()).sum(-1) + (self.hidden_bias**2).sum(-1)
        return 0.5 * (units * LOG_2PI - log_det + exponent)

    def _base_log_partition(self) -> torch.Tensor:
        units = self.event_shape[0] + self.num_hidden
        return 0.5 * (units * LOG_2PI + (self.visible_bias**2).sum(-1))

    def _covariance_root(self) -> torch.Tensor:
        """R of shape ``(..., visible, hidden)`` with ``I + R R'`` the covariance."""
        return torch.linalg.solve_triangular(self._cholesky(), self.weights.mT, upper=False).mT

    def _exact_covariance(self) -> torch.Tensor:
        root = self._covariance_root()
        return torch.eye(self.event_shape[0], dtype=self.dtype, device=self.device) + root @ root.mT

    def _exact_variance(self) -> torch.Tensor:
        return 1 + (self._covariance_root() ** 2).sum(-1)

    def exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        noise = torch.randn((*shape, self.num_hidden), dtype=self.dtype, device=self.device)
        return self._sample_visible(linear(noise, self._covariance_root().mT, self._exact_mean()))
