"""Variational autoencoders, plain and conditional, as ready pairs of model and guide."""

import math
from typing import Any

import pyro
import torch

from pyro_ebm.infer.samplers import check_positive_int
from pyro_ebm.variational import normal
from pyro_ebm.variational.likelihoods import resolve_likelihood
from pyro_ebm.variational.priors import NormalPrior, Prior, VampPrior


class LatentModel(torch.nn.Module):
    """What :class:`VAE` and :class:`CVAE` share: their parts, the plate, and the objective.

    Parameters are as there; a condition of ``None`` is none.
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        decoder: torch.nn.Module,
        latent_size: int,
        prior: Any,
        likelihood: Any,
        covariance: str,
        kl_weight: float,
        free_bits: float,
        name: str,
    ) -> None:
        super().__init__()
        check_positive_int("latent_size", latent_size)
        normal.check_covariance(covariance)
        self.encoder, self.decoder = _check_network("encoder", encoder), _check_network("decoder", decoder)
        self.latent_size, self.covariance, self.name = latent_size, covariance, _check_name(name)
        self.prior = self._resolve_prior(prior)
        self.likelihood = resolve_likelihood(likelihood)
        if self.likelihood is not likelihood:
            self._like_networks(self.likelihood)
        if isinstance(self.prior, VampPrior):
            self.prior.bind(self._posterior)
        self.kl_weight, self.free_bits = kl_weight, free_bits

    def _resolve_prior(self, prior: Any) -> Any:
        if isinstance(prior, str) and prior == "standard":
            return self._like_networks(NormalPrior("standard", self.latent_size))
        if isinstance(prior, Prior) and not isinstance(prior, type):
            return prior
        raise TypeError(
            f'prior: {type(self).__name__} expected "standard" or an object with a method `distribution` such as '
            f"MixturePrior, got {prior!r}"
        )

    def _like_networks(self, part: torch.nn.Module) -> torch.nn.Module:
        """``part``, moved to the networks' type and device."""
        networks = (*self.encoder.parameters(), *self.decoder.parameters())
        like = next((tensor for tensor in networks if tensor.is_floating_point()), torch.empty(0))
        return part.to(like.device, like.dtype)

    # ------------------------------------------------------------------ the objective

    @property
    def kl_weight(self) -> float:
        """Weight of the KL term, which may be set between steps."""
        return self._kl_weight

    @kl_weight.setter
    def kl_weight(self, kl_weight: float) -> None:
        self._kl_weight = _check_non_negative("kl_weight", kl_weight)

    @property
    def free_bits(self) -> float:
        """Nats of each latent dimension below which its KL is not counted, which may be set between steps."""
        return self._free_bits

    @free_bits.setter
    def free_bits(self, free_bits: float) -> None:
        self._free_bits = _check_non_negative("free_bits", free_bits)
        if free_bits > 0 and (self.covariance != "diagonal" or not isinstance(self.prior, NormalPrior)):
            raise ValueError(
                f"free_bits: expected 0 with {self.covariance} covariance and a {type(self.prior).__name__}, whose KL "
                f'does not split into latent dimensions, got {free_bits!r}; use covariance="diagonal" with a normal '
                "prior, or kl_weight"
            )

    @property
    def is_bound(self) -> bool:
        """Whether the objective is the ELBO: the KL has its full weight and no free bits."""
        return self.kl_weight == 1 and self.free_bits == 0

    def _excess(self, posterior: Any, prior: Any, latent: torch.Tensor) -> torch.Tensor:
        """What the objective's KL term has beyond log q(z) - log p(z), with which model and guide come."""
        gap = posterior.log_prob(latent) - prior.log_prob(latent)
        if self.free_bits > 0:
            kl = normal.divergence_by_dimension(posterior, prior).mean(-2).clamp(min=self.free_bits).sum(-1)
        elif normal.has_closed_divergence(posterior, prior):
            kl = normal.divergence(posterior, prior)
        else:
            kl = gap
        return self.kl_weight * kl - gap

    # ------------------------------------------------------------------ model and guide

    def _model(self, x: Any, condition: Any, size: int | None, subsample_size: int | None) -> torch.Tensor:
        for part in ("decoder", "prior", "likelihood"):
            self._register(part)
        if isinstance(self.prior, VampPrior):
            self._register("encoder")
        count = self._count(x, condition, size)
        with data_plate(count, size, subsample_size, x if x is not None else condition) as index:
            rows, given = rows_of(x, index), rows_of(condition, index)
            latent = pyro.sample("z", self._prior(given))
            likelihood = self._likelihood(latent, given)
            if rows is not None:
                self._check_data(rows, likelihood)
            return pyro.sample("x", likelihood, obs=rows)

    def _guide(self, x: Any, condition: Any, size: int | None, subsample_size: int | None) -> torch.Tensor:
        if x is None:
            raise ValueError("x: the guide expected data to encode, got None")
        self._register("encoder")
        with data_plate(self._count(x, condition, size), size, subsample_size, x) as index:
            given = rows_of(condition, index)
            posterior = self._posterior(rows_of(x, index), given)
            latent = pyro.sample("z", posterior)
            if not self.is_bound:
                pyro.factor(
                    f"{self.name}.objective", self._excess(posterior, self._prior(given), latent), has_rsample=True
                )
            return latent

    def _register(self, part: str) -> None:
        """Tell Pyro about the parameters of a part; where its store has some of this name, they are taken over."""
        module = getattr(self, part)
        if isinstance(module, torch.nn.Module):
            pyro.module(f"{self.name}.{part}", module, update_module_params=True)

    def _count(self, x: Any, condition: Any, size: int | None) -> int:
        """How many data there are."""
        for name, tensor in (("x", x), ("condition", condition)):
            if tensor is not None and (not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point()):
                got = getattr(tensor, "dtype", type(tensor).__name__)
                raise TypeError(f"{name}: expected a floating-point tensor, got {got}")
        if x is not None and condition is not None and len(x) != len(condition):
            raise ValueError(f"condition: expected one for each of the {len(x)} data, got {len(condition)}")
        if x is None and condition is None:
            if size is None:
                raise ValueError("size: expected the number of data to draw where x is None, got None")
            check_positive_int("size", size)
            return size
        return len(condition) if x is None else len(x)

    def _check_data(self, rows: torch.Tensor, likelihood: Any) -> None:
        self.likelihood.check(rows)
        if rows.shape[1:] != likelihood.event_shape:
            raise ValueError(
                f"x: the decoder's output is a distribution over shape {tuple(likelihood.event_shape)} for each datum, "
                f"got data of shape {tuple(rows.shape)}"
            )

    # ------------------------------------------------------------------ distributions

    def _prior(self, condition: Any = None) -> Any:
        prior: Any = self.prior.distribution(condition)
        if tuple(prior.event_shape) != (self.latent_size,):
            raise ValueError(
                f"prior: expected a distribution over shape ({self.latent_size},), the latent_size, got one over "
                f"{tuple(prior.event_shape)}"
            )
        return prior

    def _posterior(self, x: torch.Tensor, condition: Any = None) -> Any:
        output = self.encoder(x) if condition is None else self.encoder(x, condition)
        return normal.normal_from("encoder", output, self.latent_size, self.covariance)

    def _likelihood(self, latent: Any, condition: Any = None) -> Any:
        """The distribution of data given latent values of shape ``(..., latent_size)``."""
        latent = self._check_latent(latent)
        lead = latent.shape[:-1]
        given = () if condition is None else (_aligned(condition, lead),)
        raw = self.decoder(latent.reshape(-1, self.latent_size), *given)
        distribution: Any = self.likelihood(_unflatten(raw, lead))
        batch_shape = distribution.batch_shape
        if batch_shape[: len(lead)] != lead:
            raise ValueError(
                f"decoder: expected one output for each z, and so a distribution of batch shape {tuple(lead)} or "
                f"longer, got {tuple(batch_shape)}"
            )
        return distribution.to_event(len(batch_shape) - len(lead))

    def _check_latent(self, latent: Any) -> torch.Tensor:
        if not isinstance(latent, torch.Tensor) or latent.shape[-1:] != (self.latent_size,):
            got = tuple(latent.shape) if isinstance(latent, torch.Tensor) else type(latent).__name__
            raise ValueError(f"z: expected a tensor of shape (..., {self.latent_size}), got {got}")
        return latent

    @torch.no_grad()
    def _sample(self, shape: tuple[int, ...], condition: Any = None) -> torch.Tensor:
        prior = self._prior(condition)
        batch = () if condition is None else (len(condition),)
        return self._likelihood(prior.expand(torch.Size(batch)).sample(torch.Size(shape)), condition).sample()


class VAE(LatentModel):
    r"""Variational autoencoder (Kingma & Welling 2014; Rezende et al. 2014).

    .. math::

        \log p(x) \ge E_{q(z \mid x)} \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, p(z))

    ``model`` is the generative model itself, so it also serves ``Predictive``, HMC and NUTS over z, and importance
    sampling; ``guide`` is q(z | x). Their sites are ``"z"`` and ``"x"`` inside the plate ``"data"``, and parameters
    have names such as ``"vae.encoder$$$0.weight"``: give each model of a program its own ``name``, because Pyro knows
    parameters by their names, and models of one name share them.

    By default the pair is as it stands, and the ELBO class decides on the KL: a Monte Carlo estimate under
    ``Trace_ELBO``, the closed form under ``TraceMeanField_ELBO`` where Pyro has one. With a ``kl_weight`` (beta) or
    ``free_bits`` (lambda) the guide has a factor besides, with which ``Trace_ELBO`` optimises, for each datum,

    .. math::

        E_{q(z \mid x)} \log p(x \mid z) - \beta \sum_d \max(\lambda, \overline{\mathrm{KL}_d})

    where each dimension's KL is averaged over the data of the plate, a minibatch if it is one (Kingma et al. 2016);
    without free bits this is the datum's own KL. So does
    ``TraceMeanField_ELBO``, in expectation. This is not the ELBO, and for beta below 1 **no lower bound on
    the log-likelihood**. Its KL is the closed form where posterior and prior are normal, and a Monte Carlo estimate
    otherwise. Such a guide is for SVI only: importance weights would include the factor.

    :param encoder: a module from x to ``(..., 2 * latent_size)``, location and log standard deviation, for diagonal
        covariance; to ``(..., latent_size + latent_size * (latent_size + 1) // 2)`` for a full one, the location and
        then the rows of a lower-triangular factor, whose diagonal goes through exp.
    :param decoder: a module from z, shape ``(M, latent_size)``, to raw parameters of the likelihood, ``(M, ...)``.
    :param latent_size: dimensions of z.
    :param prior: ``"standard"`` for N(0, I), or one of :mod:`pyro_ebm.variational.priors`.
    :param likelihood: ``"bernoulli"`` (logits; data are zeros and ones), ``"continuous_bernoulli"`` (logits; data in
        [0, 1]), a positive number (Normal with this standard deviation), ``"normal"`` (the decoder
        returns locations and then, in the second half of its last dimension, log standard deviations;
        ``NormalLikelihood("common")`` learns one for all), or a function of the decoder's output to a distribution.
    :param covariance: of q(z | x), ``"diagonal"`` or ``"full"``.
    :param kl_weight: weight of the KL term, at least 0; set ``vae.kl_weight`` between steps to anneal it (Bowman et al.
        2016; Higgins et al. 2017).
    :param free_bits: least KL in nats, averaged over the data, that each latent dimension is charged (Kingma et al.
        2016), for diagonal covariance and a normal prior.
    :param name: prefix of parameter names.
    :raises TypeError: for networks that are no modules, or an unknown prior or likelihood.
    :raises ValueError: for sizes, weights or names out of range, and on use for outputs or data of the wrong shape.

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

    def __init__(
        self,
        encoder: torch.nn.Module,
        decoder: torch.nn.Module,
        latent_size: int,
        *,
        prior: Any = "standard",
        likelihood: Any = "bernoulli",
        covariance: str = "diagonal",
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        name: str = "vae",
    ) -> None:
        super().__init__(encoder, decoder, latent_size, prior, likelihood, covariance, kl_weight, free_bits, name)

    def model(self, x: Any = None, size: int | None = None, subsample_size: int | None = None) -> torch.Tensor:
        """The generative model, with data observed.

        :param x: data, shape ``(N, *event_shape)``; ``None`` draws ``size`` of them.
        :param size: of the plate; default N. A larger one says that ``x`` is a minibatch of so many data, by which
            its terms are scaled.
        :param subsample_size: draw so many of ``x`` at random instead, scaled likewise.
        :return: the data of the plate.
        """
        return self._model(x, None, size, subsample_size)

    def guide(self, x: Any, size: int | None = None, subsample_size: int | None = None) -> torch.Tensor:
        """The approximate posterior, with the arguments of :meth:`model`.

        :return: z, shape ``(..., N, latent_size)``.
        """
        return self._guide(x, None, size, subsample_size)

    def encode(self, x: torch.Tensor) -> Any:
        """The distribution q(z | x).

        :param x: shape ``(N, *event_shape)``, or whatever the encoder takes.
        """
        return self._posterior(x)

    def decode(self, z: torch.Tensor) -> Any:
        """The distribution p(x | z).

        :param z: shape ``(..., latent_size)``.
        """
        return self._likelihood(z)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of p(x | z) at the mean of q(z | x), shape of ``x``."""
        return self.decode(self.encode(x).mean).mean

    def sample(self, shape: Any = ()) -> torch.Tensor:
        """Data from the prior through the decoder, with the likelihood's noise; no gradient.

        :param shape: leading dimensions.
        :return: shape ``(*shape, *event_shape)``.
        """
        return self._sample(tuple(shape))

    def log_prior(self, z: torch.Tensor) -> torch.Tensor:
        """Log-density of the prior, without its normaliser and guarded where that is unknown.

        :param z: shape ``(..., latent_size)``.
        """
        return self._prior().log_prob(self._check_latent(z))


class CVAE(LatentModel):
    r"""Conditional variational autoencoder, a model of p(x | c) (Sohn et al. 2015).

    .. math::

        \log p(x \mid c) \ge E_{q(z \mid x, c)} \log p(x \mid z, c) - \mathrm{KL}(q(z \mid x, c) \,\|\, p(z \mid c))

    All else is as in :class:`VAE`.

    :param encoder: a module of two arguments, x and c, with outputs as in :class:`VAE`.
    :param decoder: a module of two arguments, z and c, to raw parameters of the likelihood.
    :param latent_size: dimensions of z.
    :param prior: ``"standard"``; a module from c to ``(..., 2 * latent_size)``, the location and log standard deviation
        of a learned p(z | c); or one of :mod:`pyro_ebm.variational.priors`.
    :param likelihood: as in :class:`VAE`.
    :param covariance: of q(z | x, c), ``"diagonal"`` or ``"full"``.
    :param kl_weight: as in :class:`VAE`.
    :param free_bits: as in :class:`VAE`.
    :param name: prefix of parameter names.
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

    def __init__(
        self,
        encoder: torch.nn.Module,
        decoder: torch.nn.Module,
        latent_size: int,
        *,
        prior: Any = "standard",
        likelihood: Any = "bernoulli",
        covariance: str = "diagonal",
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        name: str = "cvae",
    ) -> None:
        super().__init__(encoder, decoder, latent_size, prior, likelihood, covariance, kl_weight, free_bits, name)

    def _resolve_prior(self, prior: Any) -> Any:
        if isinstance(prior, VampPrior):
            raise TypeError("prior: CVAE expected no VampPrior, whose pseudo-inputs have no condition")
        if isinstance(prior, torch.nn.Module) and not isinstance(prior, Prior):
            return NormalPrior(prior, self.latent_size)
        return super()._resolve_prior(prior)

    def model(
        self, x: Any, condition: torch.Tensor, size: int | None = None, subsample_size: int | None = None
    ) -> torch.Tensor:
        """The generative model of x given c, with data observed.

        :param x: data, shape ``(N, *event_shape)``; ``None`` draws them.
        :param condition: c, shape ``(N, *condition_shape)``.
        :param size: as in :meth:`VAE.model`.
        :param subsample_size: as in :meth:`VAE.model`.
        :return: the data of the plate.
        """
        return self._model(x, _given(condition), size, subsample_size)

    def guide(
        self, x: Any, condition: torch.Tensor, size: int | None = None, subsample_size: int | None = None
    ) -> torch.Tensor:
        """The approximate posterior, with the arguments of :meth:`model`."""
        return self._guide(x, _given(condition), size, subsample_size)

    def encode(self, x: torch.Tensor, condition: torch.Tensor) -> Any:
        """The distribution q(z | x, c).

        :param x: shape ``(N, *event_shape)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        return self._posterior(x, _given(condition))

    def decode(self, z: torch.Tensor, condition: torch.Tensor) -> Any:
        """The distribution p(x | z, c).

        :param z: shape ``(..., N, latent_size)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        return self._likelihood(z, _given(condition))

    def reconstruct(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The mean of p(x | z, c) at the mean of q(z | x, c), shape of ``x``."""
        return self.decode(self.encode(x, condition).mean, condition).mean

    def sample(self, condition: torch.Tensor, shape: Any = ()) -> torch.Tensor:
        """Data given c, from the prior through the decoder, with the likelihood's noise; no gradient.

        :param condition: shape ``(N, *condition_shape)``.
        :param shape: leading dimensions: so many draws for each condition.
        :return: shape ``(*shape, N, *event_shape)``.
        """
        return self._sample(tuple(shape), _given(condition))

    def log_prior(self, z: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Log-density of p(z | c).

        :param z: shape ``(..., N, latent_size)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        return self._prior(_given(condition)).log_prob(self._check_latent(z))


def _given(condition: Any) -> torch.Tensor:
    if not isinstance(condition, torch.Tensor) or condition.dim() == 0:
        got = "a scalar" if isinstance(condition, torch.Tensor) else type(condition).__name__
        raise TypeError(f"condition: expected a tensor of shape (N, *condition_shape), got {got}")
    return condition


def data_plate(count: int, size: int | None, subsample_size: int | None, like: Any, name: str = "data") -> Any:
    """The plate of the data: all rows, a random subsample of them, or a minibatch that stands for ``size``."""
    total = count if size is None else size
    check_positive_int("size", total)
    device = None if like is None else like.device
    if total < count:
        raise ValueError(f"size: expected at least the {count} data given, got {total}")
    if subsample_size is not None:
        check_positive_int("subsample_size", subsample_size)
        if total != count and subsample_size != count:
            raise ValueError(
                f"subsample_size: expected None, because x holds {count} of {total} data and so is a minibatch "
                f"already, got {subsample_size}"
            )
        if subsample_size > count:
            raise ValueError(f"subsample_size: expected at most the {count} data given, got {subsample_size}")
    if total != count:
        return pyro.plate(name, total, subsample=torch.arange(count, device=device), dim=-1)
    return pyro.plate(name, total, subsample_size, dim=-1, device=device)


def rows_of(tensor: Any, index: torch.Tensor) -> Any:
    """The rows of a plate."""
    return tensor if tensor is None or len(index) == len(tensor) else tensor[index]


def _aligned(condition: torch.Tensor, lead: torch.Size) -> torch.Tensor:
    """One condition for each z of batch shape ``lead``, in one batch dimension."""
    if lead[-1:] != condition.shape[:1]:
        raise ValueError(
            f"condition: expected shape (N, *condition_shape) for z of batch shape {tuple(lead)}, whose last entry is "
            f"N, got {tuple(condition.shape)}"
        )
    return condition.expand(*lead, *condition.shape[1:]).reshape(-1, *condition.shape[1:])


def _unflatten(raw: Any, lead: torch.Size) -> torch.Tensor:
    """A network's output for a batch of the shape ``lead``."""
    if not isinstance(raw, torch.Tensor):
        raise TypeError(f"decoder: expected a network that returns a tensor, got a {type(raw).__name__}")
    if raw.shape[:1] != (math.prod(lead),):
        raise ValueError(f"decoder: expected one output for each of {math.prod(lead)} z, got shape {tuple(raw.shape)}")
    return raw.reshape(*lead, *raw.shape[1:])


def _check_network(name: str, network: Any) -> torch.nn.Module:
    if not isinstance(network, torch.nn.Module):
        raise TypeError(f"{name}: expected a torch.nn.Module, got {type(network).__name__}")
    return network


def _check_name(name: Any) -> str:
    if not isinstance(name, str) or not name or "$$$" in name:
        raise ValueError(f'name: expected a string that is not empty, without "$$$", got {name!r}')
    return name


def _check_non_negative(name: str, value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
    return float(value)
