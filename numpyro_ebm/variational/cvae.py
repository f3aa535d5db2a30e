"""Conditional variational autoencoders as a model and a guide."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_ebm.variational.latent import LatentModel
from numpyro_ebm.variational.priors import NormalPrior, Prior, VampPrior


class CVAE(LatentModel):
    r"""A conditional variational autoencoder, a model of p(x | c) (Sohn, Lee & Yan 2015).

    .. math::

        \log p(x \mid c) \ge E_{q(z \mid x, c)} \log p(x \mid z, c) - \mathrm{KL}(q(z \mid x, c) \,\|\, p(z \mid c))

    All else is as in :class:`VAE`.

    :param encoder: a network of one datum and its condition, ``encoder(x, c)``, with outputs as in :class:`VAE`.
    :param decoder: a network of one latent vector and the condition, ``decoder(z, c)``, to raw parameters of the
        likelihood.
    :param latent_size: number of latent variables.
    :param prior: ``"standard"`` or ``None`` for N(0, I), whatever the condition; a network from one condition to the
        ``latent_size`` locations and as many log standard deviations of a learned p(z | c) (parameter site
        ``<name>.prior.network``); or one of :mod:`numpyro_ebm.variational.priors`.
    :param likelihood: as in :class:`VAE`.
    :param covariance: of q(z | x, c), ``"diagonal"`` or ``"full"``.
    :param kl_weight: as in :class:`VAE`.
    :param free_bits: as in :class:`VAE`.
    :param name: start of the names of parameter sites; ``None``: "cvae".
    :raises TypeError: for networks that are not callable, an unknown prior or likelihood, or a ``VampPrior``, whose
        pseudo-inputs have no condition.
    :raises ValueError: as :class:`VAE`.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.variational import CVAE
    >>> encoder = lambda x, c: jnp.stack([x[0] - c, 0.0 * c])
    >>> cvae = CVAE(encoder, lambda z, c: z + c, 1, prior=lambda c: jnp.stack([c, 0.0 * c]), likelihood=0.1)
    >>> cvae.sample(jnp.array([1.0, 2.0, 3.0]), (5,), rng_key=jax.random.key(0)).shape
    (5, 3, 1)
    """

    def _resolve_prior(self, prior: Any) -> Prior:
        if isinstance(prior, VampPrior):
            raise TypeError("prior: CVAE expected no VampPrior, whose pseudo-inputs have no condition")
        if callable(prior) and not isinstance(prior, (Prior, type)):
            return NormalPrior(self.latent_size, prior)
        return super()._resolve_prior("standard" if prior is None else prior)

    def model(
        self,
        x: Any,
        condition: Any,
        size: int | None = None,
        subsample_size: int | None = None,
        *,
        kl_weight: Any = None,
    ) -> Any:
        """The generative model of x given c.

        :param x: data, shape ``(N, *event_shape)``; ``None`` draws them.
        :param condition: c, shape ``(N, *condition_shape)``.
        :param size: as in :meth:`VAE.model`.
        :param subsample_size: as in :meth:`VAE.model`.
        :param kl_weight: as in :meth:`VAE.model`.
        :return: the data of the plate.
        """
        return self._model(x, jnp.asarray(condition), size, subsample_size, kl_weight)

    def guide(
        self,
        x: Any,
        condition: Any,
        size: int | None = None,
        subsample_size: int | None = None,
        *,
        kl_weight: Any = None,
    ) -> Any:
        """The encoder as a guide, with the arguments of :meth:`model`."""
        return self._guide(x, jnp.asarray(condition), size, subsample_size, kl_weight)

    def encode(self, x: Any, condition: Any) -> dist.Distribution:
        """The distribution q(z | x, c), batch shape ``(N,)``.

        :param x: shape ``(N, *event_shape)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        return self._encode(x, condition)

    def decode(self, z: Any, condition: Any) -> dist.Distribution:
        """The distribution p(x | z, c), batch shape ``(..., N)``.

        :param z: shape ``(..., N, latent_size)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        return self._decode(z, condition)

    def reconstruct(self, x: Any, condition: Any) -> jax.Array:
        """The mean of p(x | z, c) at the mean of q(z | x, c), shape of ``x``."""
        posterior: Any = self._encode(x, condition)
        likelihood: Any = self._decode(posterior.mean, condition)
        return likelihood.mean

    def sample(self, condition: Any, shape: tuple[int, ...] = (), *, rng_key: Any = None) -> jax.Array:
        """Data given c, from the prior through the decoder, with the likelihood's noise.

        :param condition: shape ``(N, *condition_shape)``.
        :param shape: leading dimensions: so many draws for each condition.
        :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
        :return: shape ``(*shape, N, *event_shape)``.
        """
        return self._sample(shape, jnp.asarray(condition), rng_key)

    def log_prior(self, z: Any, condition: Any) -> jax.Array:
        """Log-density of p(z | c).

        :param z: shape ``(..., N, latent_size)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        return self._prior(condition).log_prob(jnp.asarray(z))
