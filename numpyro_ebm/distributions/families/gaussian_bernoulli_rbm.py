"""The restricted Boltzmann machine with Gaussian visible and binary hidden units."""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

from _ppl_ebm.calls import shows_its_call
from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.bipartite import RestrictedBoltzmannMachine
from numpyro_ebm.distributions.parts.gaussian_binary import GaussianBinaryMachine
from numpyro_ebm.sampling.protocols import Sampler


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

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> rbm = GaussianBernoulliRBM(jnp.array([[2.0], [-1.0]]), hidden_bias=-10.0, scale=0.5)
    >>> rbm.sample(jax.random.key(0), (4,)).shape
    (4, 2)
    >>> print(rbm.mean.round(3), rbm.variance.round(3))
    [ 1.  -0.5] [1.25 0.5 ]
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
        scaled = given._map(lambda rbm: rbm.scale[:, None] * rbm.weights, using=("weights", "scale"))
        return given.replace(weights=scaled, **options)

    def condition_on_noisy(self, observation: ArrayLike, noise_scale: ArrayLike) -> Self:
        """The exact posterior p(v | y) for ``v`` from this distribution and ``y ~ Normal(v, noise_scale)``.

        The product with a Gaussian likelihood stays in the family: precisions add, and the weights shrink.

        :param observation: y, shape ``(..., visible)``; leading dimensions become batch dimensions.
        :param noise_scale: standard deviation of the noise, a scalar or shape ``(..., visible)``.
        """
        observation = self.check_value(observation, "observation")
        noise = jnp.asarray(noise_scale, self.dtype)
        if self._validate_args and not_jax_tracer(noise) and not np.all(noise > 0):
            raise ValueError(f"noise_scale: expected a positive standard deviation, got {noise_scale!r}")
        noise = jnp.broadcast_to(noise, jnp.broadcast_shapes(noise.shape, self.event_shape))
        shrunk = self._map(_shrunk_parameters, noise, using=("weights", "scale"))
        shifted = self._map(_shifted_bias, observation, noise, using=("visible_bias", "scale"))
        return self.replace(**shrunk, visible_bias=shifted)


def _shrunk_parameters(rbm: GaussianBernoulliRBM, noise_scale: jax.Array) -> dict[str, jax.Array]:
    """Weights and scale after a Gaussian likelihood added its precision."""
    total = rbm.scale**-2 + noise_scale**-2
    return {"weights": (rbm.scale**-2 / total)[:, None] * rbm.weights, "scale": total**-0.5}


def _shifted_bias(rbm: GaussianBernoulliRBM, observation: jax.Array, noise_scale: jax.Array) -> jax.Array:
    """Precision-weighted mean of the visible bias and an observation."""
    precision, noise_precision = rbm.scale**-2, noise_scale**-2
    return (precision * rbm.visible_bias + noise_precision * observation) / (precision + noise_precision)
