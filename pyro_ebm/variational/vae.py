"""Variational autoencoders as a model and a guide."""

import torch
from pyro.distributions import TorchDistribution

from _ppl_ebm.calls import shows_its_call
from pyro_ebm.variational.latent import LatentModel


class VAE(LatentModel):
    r"""A variational autoencoder (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014).

    .. math::

        \log p(x) \ge E_{q(z \mid x)} \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, p(z))

    ``model`` is the generative model itself, so it also serves ``Predictive``, HMC and NUTS over z, and importance
    sampling; ``guide`` is q(z | x). With a ``kl_weight`` (beta) or ``free_bits`` (lambda), ``Trace_ELBO`` optimises

    .. math::

        E_{q(z \mid x)} \log p(x \mid z) - \beta \sum_d \max(\lambda, \overline{\mathrm{KL}_d})

    for each datum, where each dimension's KL is averaged over the data of the plate, a minibatch if it is one; without
    free bits it is the datum's own KL. This is not the ELBO, and for beta below 1 **no lower bound on the
    log-likelihood**. Its KL is the closed form where the prior is normal, else a Monte Carlo estimate. Such a guide is
    for SVI only: importance weights would include the factor.

    :param encoder: a module from x to ``(..., 2 * latent_size)``, locations, then log standard deviations; or, for
        ``covariance="full"``, to the locations and the ``latent_size * (latent_size + 1) / 2`` entries, row by row, of
        the lower-triangular factor of the covariance, whose diagonal goes through exp.
    :param decoder: a module from z, shape ``(M, latent_size)``, to raw parameters of the likelihood, ``(M, ...)``.
    :param latent_size: number of latent variables.
    :param prior: ``"standard"`` for N(0, I), or one of :mod:`pyro_ebm.variational.priors`.
    :param likelihood: ``"bernoulli"`` (logits; data are zeros and ones), ``"continuous_bernoulli"`` (logits; data in
        [0, 1]), a positive number (Normal with this standard deviation), ``"normal"`` (the decoder returns a pair,
        locations and log standard deviations, or the locations alone beside one learned standard deviation), a function
        from the decoder's output to a distribution, or one of :mod:`pyro_ebm.variational.likelihoods`.
    :param decoder_output: what the decoder returns for binary data or data in [0, 1]: ``"logits"``, or
        ``"probabilities"``, as of a last sigmoid. Logits that are all in [0, 1] warn.
    :param encoder_output: what the encoder's second outputs are: ``"log_scale"``, logarithms of standard deviations;
        or ``"scale"`` or ``"variance"``, these themselves, positive (``"scale"`` with full covariance: the factor's
        diagonal).
    :param covariance: of the encoder, ``"diagonal"`` or ``"full"``.
    :param kl_weight: weight of the KL term, at least 0 (Higgins et al. 2017); 0 trains no prior, and warns if it is one
        that learns. To anneal it (Bowman et al. 2016), give
        ``kl_weight`` to ``model`` and ``guide`` in each step.
    :param free_bits: least KL in nats, averaged over the data, that each latent dimension is charged (Kingma et al.
        2016), for diagonal covariance and a normal prior.
    :param name: start of the names of parameters, ``None``: "vae". Pyro knows them by their names, so give each
        model of a program its own.
    :raises TypeError: for networks that are no modules, or an unknown prior or likelihood.
    :raises ValueError: for sizes, weights or names out of range; on use, for shapes that do not fit, data outside the
        likelihood's support, networks whose outputs are not finite, and a name under which another model keeps its
        parameters in Pyro's store.

    >>> import pyro, torch
    >>> from pyro.infer import SVI, Trace_ELBO
    >>> from pyro_ebm.variational import VAE
    >>> pyro.set_rng_seed(0)
    >>> vae = VAE(torch.nn.Linear(6, 4), torch.nn.Linear(2, 6), latent_size=2)
    >>> data = torch.bernoulli(torch.full((100, 6), 0.3))
    >>> svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    >>> losses = [svi.step(data, subsample_size=20) for _ in range(100)]
    >>> bool(sum(losses[-20:]) < sum(losses[:20]))
    True
    >>> vae.sample((5,)).shape, vae.reconstruct(data).shape
    (torch.Size([5, 6]), torch.Size([100, 6]))
    """

    @shows_its_call
    def model(
        self,
        x: torch.Tensor | None = None,
        *,
        size: int | None = None,
        subsample_size: int | None = None,
        kl_weight: float | None = None,
    ) -> torch.Tensor:
        """The generative model.

        :param x: data, shape ``(N, *event_shape)``; ``None`` draws ``size`` of them.
        :param size: of the plate; default N. A larger one says that ``x`` is a minibatch of so many data, by which
            its terms are scaled.
        :param subsample_size: draw so many of ``x`` at random instead, scaled likewise.
        :param kl_weight: overrides the constructor's; give the same to model and guide.
        :return: the data of the plate.
        """
        return self._model(x, None, size, subsample_size, kl_weight)

    @shows_its_call
    def guide(
        self,
        x: torch.Tensor | None,
        *,
        size: int | None = None,
        subsample_size: int | None = None,
        kl_weight: float | None = None,
    ) -> torch.Tensor:
        """The encoder as a guide, with the arguments of :meth:`model`.

        :return: z, shape ``(..., N, latent_size)``.
        """
        return self._guide(x, None, size, subsample_size, kl_weight)

    def encode(self, x: torch.Tensor) -> TorchDistribution:
        """The distribution q(z | x), batch shape ``(N,)``.

        :param x: shape ``(N, *event_shape)``.
        """
        return self.latent_given_data(x)

    def decode(self, z: torch.Tensor) -> TorchDistribution:
        """The distribution p(x | z), batch shape ``(...)``.

        :param z: shape ``(..., latent_size)``.
        """
        return self.data_given_latent(z)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of p(x | z) at the mean of q(z | x), shape of ``x``."""
        return self.decoded_like(x, self.decode(self.encode(x).mean)).mean

    @shows_its_call
    def sample(self, shape: tuple[int, ...] = ()) -> torch.Tensor:
        """Data from the prior through the decoder, with the likelihood's noise; no gradient.

        :param shape: leading dimensions.
        :return: shape ``(*shape, *event_shape)``.
        """
        return self._sample(tuple(shape), None)

    def log_prior(self, z: torch.Tensor) -> torch.Tensor:
        """Log-density of the prior, without its normaliser and guarded where that is unknown.

        :param z: shape ``(..., latent_size)``.
        """
        self.check_prior_learned()
        return self.latent_prior().log_prob(self.check_latent(z))
