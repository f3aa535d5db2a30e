"""Conditional variational autoencoders as a model and a guide."""

import torch
from pyro.distributions import TorchDistribution

from _ppl_ebm.calls import shows_its_call
from pyro_ebm.variational.latent import LatentModel, PriorLike, check_tensor
from pyro_ebm.variational.priors import NormalPrior, Prior, VampPrior


class CVAE(LatentModel):
    r"""A conditional variational autoencoder, a model of p(x | c) (Sohn, Lee & Yan 2015).

    .. math::

        \log p(x \mid c) \ge E_{q(z \mid x, c)} \log p(x \mid z, c) - \mathrm{KL}(q(z \mid x, c) \,\|\, p(z \mid c))

    All else is as in :class:`VAE`.

    :param encoder: a module of two arguments, ``encoder(x, c)``, with outputs as in :class:`VAE`.
    :param decoder: a module of two arguments, ``decoder(z, c)``, to raw parameters of the likelihood.
    :param latent_size: number of latent variables.
    :param prior: ``"standard"`` or ``None`` for N(0, I), whatever the condition; a module from c to
        ``(..., 2 * latent_size)``, the locations and log standard deviations of a learned p(z | c); or one of
        :mod:`pyro_ebm.variational.priors`.
    :param likelihood: as in :class:`VAE`.
    :param decoder_output: as in :class:`VAE`.
    :param encoder_output: as in :class:`VAE`; a network of the prior gives log standard deviations all the same.
    :param covariance: of q(z | x, c), ``"diagonal"`` or ``"full"``.
    :param kl_weight: as in :class:`VAE`.
    :param free_bits: as in :class:`VAE`.
    :param name: start of the names of parameters; ``None``: "cvae".
    :raises TypeError: for networks that are no modules, an unknown prior or likelihood, or a ``VampPrior``, whose
        pseudo-inputs have no condition.
    :raises ValueError: as :class:`VAE`.

    >>> import torch
    >>> from pyro_ebm.variational import CVAE
    >>> class Joint(torch.nn.Linear):
    ...     def forward(self, value, condition):
    ...         return super().forward(torch.cat([value, condition], -1))
    >>> cvae = CVAE(Joint(6 + 3, 4), Joint(2 + 3, 6), 2, prior=torch.nn.Linear(3, 4))
    >>> cvae.sample(torch.zeros(10, 3), (5,)).shape
    torch.Size([5, 10, 6])
    """

    def _resolve_prior(self, prior: PriorLike) -> Prior:
        if isinstance(prior, VampPrior):
            raise TypeError("prior: CVAE expected no VampPrior, whose pseudo-inputs have no condition")
        if isinstance(prior, torch.nn.Module) and not isinstance(prior, Prior):
            return NormalPrior(self.latent_size, prior)
        return super()._resolve_prior("standard" if prior is None else prior)

    @shows_its_call
    def model(
        self,
        x: torch.Tensor | None,
        condition: torch.Tensor,
        *,
        size: int | None = None,
        subsample_size: int | None = None,
        kl_weight: float | None = None,
    ) -> torch.Tensor:
        """The generative model of x given c.

        :param x: data, shape ``(N, *event_shape)``; ``None`` draws them.
        :param condition: c, shape ``(N, *condition_shape)``.
        :param size: as in :meth:`VAE.model`.
        :param subsample_size: as in :meth:`VAE.model`.
        :param kl_weight: as in :meth:`VAE.model`.
        :return: the data of the plate.
        """
        return self._model(x, check_tensor("condition", condition), size, subsample_size, kl_weight)

    @shows_its_call
    def guide(
        self,
        x: torch.Tensor | None,
        condition: torch.Tensor,
        *,
        size: int | None = None,
        subsample_size: int | None = None,
        kl_weight: float | None = None,
    ) -> torch.Tensor:
        """The encoder as a guide, with the arguments of :meth:`model`."""
        return self._guide(x, check_tensor("condition", condition), size, subsample_size, kl_weight)

    def encode(self, x: torch.Tensor, condition: torch.Tensor) -> TorchDistribution:
        """The distribution q(z | x, c), batch shape ``(N,)``.

        :param x: shape ``(N, *event_shape)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        return self.latent_given_data(x, check_tensor("condition", condition))

    def decode(self, z: torch.Tensor, condition: torch.Tensor) -> TorchDistribution:
        """The distribution p(x | z, c), batch shape ``(..., N)``.

        :param z: shape ``(..., N, latent_size)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        return self.data_given_latent(z, check_tensor("condition", condition))

    def reconstruct(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The mean of p(x | z, c) at the mean of q(z | x, c), shape of ``x``."""
        return self.decoded_like(x, self.decode(self.encode(x, condition).mean, condition)).mean

    @shows_its_call
    def sample(self, condition: torch.Tensor, shape: tuple[int, ...] = ()) -> torch.Tensor:
        """Data given c, from the prior through the decoder, with the likelihood's noise; no gradient.

        :param condition: shape ``(N, *condition_shape)``.
        :param shape: leading dimensions: so many draws for each condition.
        :return: shape ``(*shape, N, *event_shape)``.
        """
        return self._sample(tuple(shape), check_tensor("condition", condition))

    def log_prior(self, z: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Log-density of p(z | c).

        :param z: shape ``(..., N, latent_size)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        self.check_prior_learned()
        return self.latent_prior(check_tensor("condition", condition)).log_prob(self.check_latent(z))
