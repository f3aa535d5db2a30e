"""The restricted Boltzmann machine with Gaussian visible and binary hidden units."""

from typing import Any, Self

import torch
from torch.distributions import constraints

from _ppl_ebm.calls import shows_its_call
from pyro_ebm.distributions.batching import as_tensor, is_concrete, linear
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.bipartite import RestrictedBoltzmannMachine
from pyro_ebm.distributions.parts.gaussian_binary import GaussianBinaryMachine
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.types import ArrayLike


class GaussianBernoulliRBM(GaussianBinaryMachine):
    r"""Restricted Boltzmann machine with Gaussian visible and binary hidden units, in the mean-shift convention.

    .. math::

        E(v, h) = \tfrac12 (v - \mu)^\top \Lambda (v - \mu) - v^\top \Lambda W h - b^\top h, \qquad
        \Lambda = \mathrm{diag}(1 / \sigma^2)

    so that ``v | h ~ Normal(mu + W h, sigma)`` and ``h | v ~ Bernoulli(logits = b + W' Lambda v)`` (Krizhevsky 2009;
    Cho, Ilin & Raiko 2011; Liao et al. 2022). The marginal is a mixture of ``2^hidden`` Gaussians: proper for all
    weights, with exact density, moments and draws while ``hidden <= 16``.

    :param weights: W, shape ``(..., visible, hidden)``, in the units of ``v``.
    :param visible_bias: mu, shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param scale: sigma, the standard deviation (never a variance) of each visible unit given the hidden ones, shape
        ``(..., visible)`` or a scalar; default 1.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration; default: exact where possible, else ``Gibbs()``.

    >>> import torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[2.0], [-1.0]]), hidden_bias=-10.0, scale=0.5)
    >>> rbm.sample((4,)).shape
    torch.Size([4, 2])
    >>> print(rbm.mean, rbm.variance)
    tensor([ 1.0000, -0.5000]) tensor([1.2500, 0.5000])
    """

    parameter_dims = {**RestrictedBoltzmannMachine.parameter_dims, "scale": ("visible",)}
    arg_constraints = {
        **RestrictedBoltzmannMachine.arg_constraints,
        "scale": constraints.independent(constraints.positive, 1),
    }

    def __init__(
        self,
        weights: ArrayLike,
        *,
        visible_bias: ArrayLike = 0.0,
        hidden_bias: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        parameters = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias, "scale": scale}
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    @classmethod
    @shows_its_call
    def from_krizhevsky(
        cls,
        weights: ArrayLike,
        *,
        visible_bias: ArrayLike = 0.0,
        hidden_bias: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        **options: Any,
    ) -> Self:
        r"""The machine in the convention of Hinton (2010) and Krizhevsky (2009), whose coupling is
        :math:`-\sum_{ij} (v_i / \sigma_i) W_{ij} h_j`; equal to this class with weights ``scale[:, None] * weights``.
        """
        given = cls(weights, visible_bias=visible_bias, hidden_bias=hidden_bias, scale=scale, **options)
        return given.replace(weights=given.scale.unsqueeze(-1) * given.weights, **options)

    def condition_on_noisy(self, observation: ArrayLike, noise_scale: ArrayLike) -> Self:
        """The exact posterior p(v | y) for ``v`` from this distribution and ``y ~ Normal(v, noise_scale)``.

        The product with a Gaussian likelihood stays in the family: precisions add, and the weights shrink.

        :param observation: y, shape ``(..., visible)``; leading dimensions become batch dimensions.
        :param noise_scale: standard deviation of the noise, a scalar or shape ``(..., visible)``.
        """
        observation = self.check_value(observation, "observation")
        noise = as_tensor("noise_scale", noise_scale, self.device, self.dtype).to(self.dtype)
        if self._validate_args and is_concrete(noise) and not (noise > 0).all():
            raise ValueError(f"noise_scale: expected a positive standard deviation, got {noise_scale!r}")
        noise = noise.expand(torch.broadcast_shapes(noise.shape, self.event_shape))
        return self.replace(**self._posterior_parameters(observation, noise))

    def _posterior_parameters(self, observation: torch.Tensor, noise_scale: torch.Tensor) -> dict[str, torch.Tensor]:
        precision, noise_precision = self.scale**-2, noise_scale**-2
        total = precision + noise_precision
        return {
            "weights": (precision / total).unsqueeze(-1) * self.weights,
            "visible_bias": (precision * self.visible_bias + noise_precision * observation) / total,
            "scale": total**-0.5,
        }

    def parameter_gradient(self, value: torch.Tensor, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        precision = self.scale**-2
        active = torch.sigmoid(self._hidden_input(value))
        centred, signed = value - self.visible_bias, active * coefficients[:, None]
        spread = 2 * value * linear(active, self.weights.mT) - centred**2
        return {
            "weights": (precision * value).mT @ signed,
            "visible_bias": (coefficients @ centred) * precision,
            "hidden_bias": signed.sum(0),
            "scale": (coefficients @ spread) / -(self.scale**3),
        }
