"""Conditional variational autoencoders as a model and a guide."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from _ppl_ebm.calls import shows_its_call
from _ppl_ebm.plates import check_rows
from numpyro_ebm.sampling.types import Key
from numpyro_ebm.variational.latent import LatentModel, PriorLike, Weight
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
    :param decoder_output: as in :class:`VAE`.
    :param encoder_output: as in :class:`VAE`; a network of the prior gives log standard deviations all the same.
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

    def _resolve_prior(self, prior: PriorLike) -> Prior:
        if isinstance(prior, VampPrior):
            raise TypeError("prior: CVAE expected no VampPrior, whose pseudo-inputs have no condition")
        if callable(prior) and not isinstance(prior, (Prior, type)):
            return NormalPrior(self.latent_size, prior)
        return super()._resolve_prior("standard" if prior is None else prior)

    @shows_its_call
    def model(
        self,
        x: ArrayLike | None,
        condition: ArrayLike,
        *,
        size: int | None = None,
        subsample_size: int | None = None,
        kl_weight: Weight | None = None,
    ) -> jax.Array:
        """The generative model of x given c.

        :param x: data, shape ``(N, *event_shape)``; ``None`` draws them.
        :param condition: c, shape ``(N, *condition_shape)``.
        :param size: as in :meth:`VAE.model`.
        :param subsample_size: as in :meth:`VAE.model`.
        :param kl_weight: as in :meth:`VAE.model`.
        :return: the data of the plate.
        """
        return self._model(x, _conditions(condition), size, subsample_size, kl_weight)

    @shows_its_call
    def guide(
        self,
        x: ArrayLike | None,
        condition: ArrayLike,
        *,
        size: int | None = None,
        subsample_size: int | None = None,
        kl_weight: Weight | None = None,
    ) -> jax.Array:
        """The encoder as a guide, with the arguments of :meth:`model`."""
        return self._guide(x, _conditions(condition), size, subsample_size, kl_weight)

    def encode(self, x: ArrayLike, condition: ArrayLike) -> Distribution:
        """The distribution q(z | x, c), batch shape ``(N,)``.

        :param x: shape ``(N, *event_shape)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        return self.latent_given_data(x, _conditions(condition))

    def decode(self, z: ArrayLike, condition: ArrayLike) -> Distribution:
        """The distribution p(x | z, c), batch shape ``(..., N)``.

        :param z: shape ``(..., N, latent_size)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        return self.data_given_latent(z, _conditions(condition))

    def reconstruct(self, x: ArrayLike, condition: ArrayLike) -> jax.Array:
        """The mean of p(x | z, c) at the mean of q(z | x, c), shape of ``x``."""
        return self.decoded_like(x, self.decode(self.encode(x, condition).mean, condition)).mean

    @shows_its_call
    def sample(self, condition: ArrayLike, shape: tuple[int, ...] = (), *, rng_key: Key | None = None) -> jax.Array:
        """Data given c, from the prior through the decoder, with the likelihood's noise.

        :param condition: shape ``(N, *condition_shape)``.
        :param shape: leading dimensions: so many draws for each condition.
        :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
        :return: shape ``(*shape, N, *event_shape)``.
        """
        return self._sample(shape, _conditions(condition), rng_key)

    def log_prior(self, z: ArrayLike, condition: ArrayLike) -> jax.Array:
        """Log-density of p(z | c).

        :param z: shape ``(..., N, latent_size)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        given = _conditions(condition)
        self.check_prior_learned(given)
        return self.latent_prior(given).log_prob(self.check_latent(z))


def _conditions(condition: ArrayLike) -> jax.Array:
    return check_rows("condition", jnp.asarray(condition))
