"""Variational autoencoders, plain and conditional, as a model and a guide.

The model is the generative one, ``z ~ prior`` and ``x ~ likelihood(decoder(z))`` at the sites ``"z"`` and ``"x"`` in
the plate ``"data"``; the guide draws ``"z"`` from the encoder. Networks are called on one datum, or one latent vector,
at a time, under ``vmap``, and their arrays are ``numpyro.param`` sites ``<name>.encoder`` and ``<name>.decoder``.

The objective under ``Trace_ELBO`` is, summed over data and scaled up from minibatches,

    E_q log p(x | z) - kl_weight * penalty,        penalty = KL(q(z | x) | p(z)).

With ``kl_weight=1`` and ``free_bits=0``, the ELBO, the KL is a Monte Carlo difference of log-densities: it has no
variance where the guide is exact. Otherwise it is the closed form where the prior is a ``NormalPrior`` (the guide then
has a factor ``<name>.kl``, which replaces the difference by the closed form, and the model stays the generative one),
and Monte Carlo elsewhere (the site ``"z"`` is scaled by ``kl_weight`` in model and guide).
"""

import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.util import not_jax_tracer

from numpyro_ebm.infer.keys import require_key
from numpyro_ebm.infer.samplers import check_positive_int
from numpyro_ebm.variational.likelihoods import resolve_likelihood
from numpyro_ebm.variational.networks import StartFrom, check_network, register_network
from numpyro_ebm.variational.normal import check_covariance, kl_of_full, kl_per_dimension, normal_from_raw
from numpyro_ebm.variational.priors import NormalPrior, Prior

_Network = Callable[..., jax.Array]
_Self = TypeVar("_Self", bound="_Autoencoder")


class _Autoencoder:
    """What both kinds share; ``condition`` is ``None`` for the plain one."""

    def __init__(
        self,
        encoder: _Network,
        decoder: _Network,
        latent_size: int,
        *,
        prior: Any,
        likelihood: Any,
        covariance: str,
        kl_weight: float,
        free_bits: float,
        name: str,
    ) -> None:
        self.encoder, self.decoder = check_network("encoder", encoder), check_network("decoder", decoder)
        check_positive_int("latent_size", latent_size)
        self.latent_size, self.name = latent_size, name
        self.covariance = check_covariance(covariance)
        self.likelihood = resolve_likelihood(likelihood)
        self.prior = self._resolve_prior(prior).bound(self._encode)
        self.kl_weight = _check_non_negative("kl_weight", kl_weight)
        self.free_bits = _check_free_bits(free_bits, self.prior, self.covariance)
        self._parameters: Mapping[str, Any] = {}

    def _resolve_prior(self, prior: Any) -> Prior:
        if isinstance(prior, str) and prior == "standard":
            return NormalPrior(self.latent_size, name=f"{self.name}.prior")
        if not isinstance(prior, Prior):
            raise TypeError(
                f'prior: expected "standard" or an object such as numpyro_ebm.variational.MixturePrior, got {prior!r}'
            )
        if prior.latent_size not in (None, self.latent_size):
            raise ValueError(f"prior: expected one over {self.latent_size} variables, got {prior.latent_size}")
        return prior

    def with_parameters(self: _Self, parameters: Mapping[str, Any]) -> _Self:
        """A copy that starts from learned parameters, to encode, decode, sample or train on with.

        :param parameters: from names of parameter sites to values, as ``SVI.run(...).params`` or ``SVI.get_params``;
            sites that belong to other parts of a model are allowed.
        """
        copied = copy.copy(self)
        copied._parameters = {**self._parameters, **parameters}
        return copied

    # ------------------------------------------------------------------ what the public methods share

    def _encode(self, x: Any, condition: Any = None) -> dist.Distribution:
        with StartFrom(self._parameters):
            network = register_network(f"{self.name}.encoder", self.encoder)
            inputs = [jnp.asarray(array) for array in (x, condition) if array is not None]
            raw = jax.vmap(lambda *one: network(*one))(*inputs)
            if raw.ndim != 2:
                raise ValueError(f"encoder: expected one vector for each datum, got shape {raw.shape[1:]}")
            return normal_from_raw(raw, self.latent_size, self.covariance, "encoder")

    def _decode(self, z: Any, condition: Any = None) -> dist.Distribution:
        z = jnp.asarray(z)
        if z.ndim == 0 or z.shape[-1] != self.latent_size:
            raise ValueError(f"z: expected shape (..., {self.latent_size}), got {z.shape}")
        with StartFrom(self._parameters):
            network = register_network(f"{self.name}.decoder", self.decoder)
            if condition is None:
                function, arrays, num_batch = lambda one: network(one), (z,), z.ndim - 1
            else:
                condition = _check_rows("condition", condition, z)
                given = jax.vmap(lambda one, c: network(one, c))
                function, arrays, num_batch = lambda rows: given(rows, condition), (z,), z.ndim - 2
            for _ in range(num_batch):
                function = jax.vmap(function)
            return self.likelihood.distribution(function(*arrays), z.ndim - 1, self.name)

    def _prior(self, condition: Any = None) -> dist.Distribution:
        with StartFrom(self._parameters):
            made = self.prior.distribution(condition)
        if made.event_shape != (self.latent_size,):
            raise ValueError(f"prior: expected event shape ({self.latent_size},), got {made.event_shape}")
        return made

    def _model(self, x: Any, condition: Any, size: Any, subsample_size: Any, kl_weight: Any) -> Any:
        x = None if x is None else self._check_data(x)
        plate = _plan(x, condition, size, subsample_size)
        with numpyro.plate("data", plate.size, plate.subsample_size) as index:
            x, condition = plate.select(x, index), plate.select(condition, index)
            with self._weighted(self._weight(kl_weight)):
                z = numpyro.sample("z", self._prior(condition))
            return numpyro.sample("x", self._decode(z, condition), obs=x)

    def _guide(self, x: Any, condition: Any, size: Any, subsample_size: Any, kl_weight: Any) -> Any:
        x = self._check_data(x)
        plate = _plan(x, condition, size, subsample_size)
        weight = self._weight(kl_weight)
        with numpyro.plate("data", plate.size, plate.subsample_size) as index:
            x, condition = plate.select(x, index), plate.select(condition, index)
            posterior = self._encode(x, condition)
            with self._weighted(weight):
                z = numpyro.sample("z", posterior)
            if self._is_modified(weight) and isinstance(self.prior, NormalPrior):
                penalty = weight * self._penalty(posterior, condition)
                drawn = self._prior(condition).log_prob(z) - posterior.log_prob(z)
                numpyro.factor(f"{self.name}.kl", drawn + penalty)
        return z

    def _check_data(self, x: Any) -> jax.Array:
        x = jnp.asarray(x)
        if x.ndim == 0 or len(x) == 0:
            raise ValueError(f"x: expected data of shape (N, ...), got {x.shape}")
        self.likelihood.check(x)
        return x

    def _weight(self, kl_weight: Any) -> Any:
        return self.kl_weight if kl_weight is None else _check_non_negative("kl_weight", kl_weight)

    def _is_modified(self, weight: Any) -> bool:
        return self.free_bits > 0 or not not_jax_tracer(weight) or weight != 1

    def _weighted(self, weight: Any) -> Any:
        """Handler of the site ``z`` where the weighted KL is a Monte Carlo estimate."""
        if isinstance(self.prior, NormalPrior) or not self._is_modified(weight):
            return contextlib.nullcontext()
        if not_jax_tracer(weight) and weight == 0:
            return handlers.mask(mask=False)
        return handlers.scale(scale=weight)

    def _penalty(self, posterior: dist.Distribution, condition: Any) -> jax.Array:
        """The KL divergence of each datum in closed form, with free bits, shape ``(N,)``."""
        with StartFrom(self._parameters):
            return normal_penalty(self.prior, posterior, condition, self.free_bits)

    def _sample(self, shape: tuple[int, ...], condition: Any, rng_key: Any) -> jax.Array:
        key_latent, key_data = jax.random.split(require_key(f"{type(self).__name__}.sample", rng_key))
        with handlers.seed(rng_seed=key_latent):
            prior = self._prior(condition)
        if condition is not None and prior.batch_shape == ():
            prior = prior.expand((len(condition),))
        z = prior.sample(key_latent, tuple(shape))
        return self._decode(z, condition).sample(key_data)


class VAE(_Autoencoder):
    r"""A variational autoencoder (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014).

    .. math::

        \log p(x) \ge E_{q(z|x)} \log p(x | z) - KL(q(z|x) \| p(z))

    :param encoder: a network that maps one datum to the parameters of ``q(z | x)``: ``latent_size`` locations, then as
        many log standard deviations; or, for ``covariance="full"``, the ``latent_size * (latent_size + 1) / 2``
        entries, row by row, of the lower-triangular factor of the covariance, whose diagonal goes through exp. A
        flax.nnx or equinox module, a ``jax.tree_util.Partial``, any callable pytree: its floating-point arrays are
        learned.
    :param decoder: a network that maps one latent vector of shape ``(latent_size,)`` to raw parameters of the
        likelihood.
    :param latent_size: number of latent variables.
    :param prior: ``"standard"``, or an object of :mod:`numpyro_ebm.variational.priors`.
    :param likelihood: ``"bernoulli"`` (logits; data in {0, 1}), ``"continuous_bernoulli"`` (logits; data in [0, 1]), a
        positive number (a normal distribution of that standard deviation), ``"normal"`` (the decoder returns a pair,
        locations and log standard deviations, or the locations alone beside one learned standard deviation), or a
        function from the raw parameters to a distribution.
    :param covariance: of the encoder, ``"diagonal"`` or ``"full"``.
    :param kl_weight: factor of the KL term. Other than 1, the objective is not the ELBO, and below 1 it is **no lower
        bound** on the log-likelihood. For annealing give ``kl_weight`` to ``model`` and ``guide`` in each step.
    :param free_bits: lambda, least KL in nats that each latent dimension of each datum is charged: the KL term becomes
        the sum over dimensions of ``max(lambda, KL_d)`` (after Kingma et al. 2016, who average over a minibatch first).
        Not the ELBO either. Needs a diagonal covariance and a ``NormalPrior``, whose KL is a sum over dimensions.
    :param name: start of the names of parameter sites.
    :raises TypeError: for networks that are not callable or an unknown prior.
    :raises ValueError: for other arguments out of range; on use, for shapes that do not fit and data outside the
        likelihood's support.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import SVI, Trace_ELBO
    >>> from numpyro.optim import Adam
    >>> from numpyro_ebm.variational import VAE
    >>> linear = lambda weights, x: x @ weights
    >>> encoder = jax.tree_util.Partial(linear, jnp.full((3, 2), 0.1))
    >>> decoder = jax.tree_util.Partial(linear, jnp.full((1, 3), 0.1))
    >>> vae = VAE(encoder, decoder, 1)
    >>> x = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> result = SVI(vae.model, vae.guide, Adam(0.1), Trace_ELBO()).run(jax.random.key(0), 5, x, progress_bar=False)
    >>> vae.with_parameters(result.params).reconstruct(x).shape
    (2, 3)
    """

    def __init__(
        self,
        encoder: _Network,
        decoder: _Network,
        latent_size: int,
        *,
        prior: Any = "standard",
        likelihood: Any = "bernoulli",
        covariance: str = "diagonal",
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        name: str = "vae",
    ) -> None:
        options: dict[str, Any] = {"prior": prior, "likelihood": likelihood, "covariance": covariance}
        options |= {"kl_weight": kl_weight, "free_bits": free_bits, "name": name}
        super().__init__(encoder, decoder, latent_size, **options)

    def model(
        self, x: Any = None, size: int | None = None, subsample_size: int | None = None, *, kl_weight: Any = None
    ) -> Any:
        """The generative model, a NumPyro model.

        :param x: data, shape ``(N, ...)``; ``None`` draws them (``size`` must then be given).
        :param size: number of data that ``x`` stands for, default ``len(x)``; larger where ``x`` is a minibatch.
        :param subsample_size: draw a minibatch of so many rows of ``x``, which then holds all ``size`` data.
        :param kl_weight: overrides the constructor's; give the same to model and guide. May be traced.
        """
        return self._model(x, None, size, subsample_size, kl_weight)

    def guide(
        self, x: Any, size: int | None = None, subsample_size: int | None = None, *, kl_weight: Any = None
    ) -> Any:
        """The encoder as a guide; arguments as those of :meth:`model`."""
        return self._guide(x, None, size, subsample_size, kl_weight)

    def encode(self, x: Any) -> dist.Distribution:
        """``q(z | x)`` of data of shape ``(N, ...)``: batch shape ``(N,)``, event shape ``(latent_size,)``."""
        return self._encode(x)

    def decode(self, z: Any) -> dist.Distribution:
        """``p(x | z)`` of latent vectors of shape ``(..., latent_size)``: batch shape ``(...)``."""
        return self._decode(z)

    def reconstruct(self, x: Any) -> jax.Array:
        """Mean of ``p(x | z)`` at the mean of ``q(z | x)``, for data of shape ``(N, ...)``."""
        posterior: Any = self._encode(x)
        likelihood: Any = self._decode(posterior.mean)
        return likelihood.mean

    def sample(self, shape: tuple[int, ...] = (), *, rng_key: Any = None) -> jax.Array:
        """Independent draws of data, from the prior through the decoder, shape ``shape + (...)``.

        :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
        """
        return self._sample(shape, None, rng_key)

    def log_prior(self, z: Any) -> jax.Array:
        """Log-density of the prior at ``z``, shape ``(..., latent_size)``, guarded where its normaliser is unknown."""
        return self._prior().log_prob(jnp.asarray(z))


class CVAE(_Autoencoder):
    r"""A conditional variational autoencoder (Sohn, Lee & Yan 2015).

    .. math::

        \log p(x | c) \ge E_{q(z|x,c)} \log p(x | z, c) - KL(q(z|x,c) \| p(z|c))

    :param encoder: maps one datum and its condition, ``encoder(x, c)``, to the parameters of ``q(z | x, c)``; as in
        :class:`VAE`.
    :param decoder: maps one latent vector and the condition, ``decoder(z, c)``, to raw parameters of the likelihood.
    :param latent_size: number of latent variables.
    :param prior: ``"standard"``, which does not look at the condition, or a network that maps one condition to the
        ``latent_size`` locations and as many log standard deviations of ``p(z | c)`` (parameter site
        ``<name>.prior.network``), or an object of :mod:`numpyro_ebm.variational.priors`.
    :param likelihood: as in :class:`VAE`, and so ``covariance``, ``kl_weight``, ``free_bits``, ``name`` and errors.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.variational import CVAE
    >>> encoder = lambda x, c: jnp.stack([x[0] - c, 0.0 * c])
    >>> cvae = CVAE(encoder, lambda z, c: z + c, 1, prior=lambda c: jnp.stack([c, 0.0 * c]), likelihood=0.1)
    >>> cvae.sample(jnp.array([1.0, 2.0, 3.0]), (5,), rng_key=jax.random.key(0)).shape
    (5, 3, 1)
    """

    def __init__(
        self,
        encoder: _Network,
        decoder: _Network,
        latent_size: int,
        *,
        prior: Any = "standard",
        likelihood: Any = "bernoulli",
        covariance: str = "diagonal",
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        name: str = "cvae",
    ) -> None:
        options: dict[str, Any] = {"prior": prior, "likelihood": likelihood, "covariance": covariance}
        options |= {"kl_weight": kl_weight, "free_bits": free_bits, "name": name}
        super().__init__(encoder, decoder, latent_size, **options)

    def _resolve_prior(self, prior: Any) -> Prior:
        if callable(prior) and not isinstance(prior, Prior):
            return NormalPrior(self.latent_size, prior, name=f"{self.name}.prior")
        return super()._resolve_prior(prior)

    def model(
        self,
        x: Any,
        condition: Any,
        size: int | None = None,
        subsample_size: int | None = None,
        *,
        kl_weight: Any = None,
    ) -> Any:
        """The generative model given conditions of shape ``(N, ...)``; the rest as in :meth:`VAE.model`."""
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
        """The encoder as a guide; arguments as those of :meth:`model`."""
        return self._guide(x, jnp.asarray(condition), size, subsample_size, kl_weight)

    def encode(self, x: Any, condition: Any) -> dist.Distribution:
        """``q(z | x, c)``, batch shape ``(N,)``."""
        return self._encode(x, condition)

    def decode(self, z: Any, condition: Any) -> dist.Distribution:
        """``p(x | z, c)`` of latent vectors of shape ``(..., N, latent_size)`` and N conditions, batch ``(..., N)``."""
        return self._decode(z, condition)

    def reconstruct(self, x: Any, condition: Any) -> jax.Array:
        """Mean of ``p(x | z, c)`` at the mean of ``q(z | x, c)``."""
        posterior: Any = self._encode(x, condition)
        likelihood: Any = self._decode(posterior.mean, condition)
        return likelihood.mean

    def sample(self, condition: Any, shape: tuple[int, ...] = (), *, rng_key: Any = None) -> jax.Array:
        """Independent draws given N conditions, from the prior through the decoder, shape ``shape + (N, ...)``."""
        return self._sample(shape, jnp.asarray(condition), rng_key)

    def log_prior(self, z: Any, condition: Any) -> jax.Array:
        """Log-density of the prior at ``z`` of shape ``(N, latent_size)``, given N conditions if it uses them."""
        return self._prior(condition).log_prob(jnp.asarray(z))


def normal_penalty(prior: Any, posterior: Any, condition: Any, free_bits: float = 0.0) -> jax.Array:
    """KL divergence of normal posteriors from a ``NormalPrior`` in closed form, with free bits, shape ``(N,)``."""
    if isinstance(posterior, dist.MultivariateNormal):
        return kl_of_full(posterior, *prior.moments(condition, posterior.loc))
    each = kl_per_dimension(posterior, *prior.moments(condition, posterior.base_dist.loc))
    return (jnp.maximum(free_bits, each) if free_bits > 0 else each).sum(-1)


class _Plan(NamedTuple):
    """Sizes of the plate, and whether its indices select rows of the data."""

    size: int
    subsample_size: int
    selects: bool

    def select(self, array: Any, index: Any) -> Any:
        return array[index] if self.selects and array is not None else array


def _plan(x: Any, condition: Any, size: Any, subsample_size: Any) -> _Plan:
    counts = [len(array) for array in (x, condition) if array is not None]
    if len(set(counts)) > 1:
        raise ValueError(f"condition: expected one row for each of the {counts[0]} data, got {counts[1]}")
    for name, value in (("size", size), ("subsample_size", subsample_size)):
        if value is not None:
            check_positive_int(name, value)
    if not counts and size is None:
        raise ValueError("size: expected the number of data to draw, since x is None, got None")
    size = counts[0] if size is None else size
    count = counts[0] if counts else size
    if count > size:
        raise ValueError(f"size: expected at least the number of rows, {count}, got {size}")
    if count < size:  # a minibatch already
        if subsample_size not in (None, count):
            raise ValueError(
                f"subsample_size: expected None or {count}, the rows of this minibatch of {size} data, got "
                f"{subsample_size}"
            )
        return _Plan(size, count, False)
    if subsample_size is not None and subsample_size > size:
        raise ValueError(f"subsample_size: expected at most {size}, got {subsample_size}")
    return _Plan(size, size if subsample_size is None else subsample_size, subsample_size not in (None, size))


def _check_rows(name: str, value: Any, z: jax.Array) -> jax.Array:
    array = jnp.asarray(value)
    if z.ndim < 2 or array.ndim == 0 or len(array) != z.shape[-2]:
        raise ValueError(f"{name}: expected one row for each of the latent vectors {z.shape}, got shape {array.shape}")
    return array


def _check_non_negative(name: str, value: Any) -> Any:
    if not not_jax_tracer(value):
        return value
    if isinstance(value, (bool, str)) or value is None or not jnp.ndim(value) == 0 or not 0 <= value < float("inf"):
        raise ValueError(f"{name}: expected a non-negative number, got {value!r}")
    return value


def _check_free_bits(free_bits: Any, prior: Prior, covariance: str) -> float:
    _check_non_negative("free_bits", free_bits)
    if free_bits > 0 and (covariance != "diagonal" or not isinstance(prior, NormalPrior)):
        raise ValueError(
            'free_bits: expected 0 unless covariance="diagonal" and the prior is a NormalPrior, whose KL divergence is '
            f"a sum over latent dimensions, got {free_bits!r} with covariance={covariance!r} and {type(prior).__name__}"
        )
    return float(free_bits)
