"""What plain and conditional variational autoencoders share: their parts, the plate, model and guide.

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
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.util import not_jax_tracer

from _ppl_ebm.checks import check_between, check_positive_int
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.variational.likelihoods import resolve_likelihood
from numpyro_ebm.variational.networks import StartFrom, check_network, learned_arrays, register_network
from numpyro_ebm.variational.normal import check_covariance, divergence, divergence_by_dimension, normal_from
from numpyro_ebm.variational.priors import NormalPrior, Prior

Network = Callable[..., Any]
_Self = TypeVar("_Self", bound="LatentModel")


class LatentModel:
    """The base of :class:`VAE` and :class:`CVAE`, whose parameters are explained there.

    Private methods take a ``condition``, which is ``None`` for the plain one.
    """

    def __init__(
        self,
        encoder: Network,
        decoder: Network,
        latent_size: int,
        *,
        prior: Any = "standard",
        likelihood: Any = "bernoulli",
        covariance: str = "diagonal",
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        name: str | None = None,
    ) -> None:
        self.encoder, self.decoder = check_network("encoder", encoder), check_network("decoder", decoder)
        check_positive_int("latent_size", latent_size)
        name = type(self).__name__.lower() if name is None else name
        if not isinstance(name, str) or not name:
            raise ValueError(f"name: expected a string that is not empty, got {name!r}")
        self.latent_size, self.name = latent_size, name
        self.covariance = check_covariance(covariance)
        self.likelihood = resolve_likelihood(likelihood)
        self.prior = self._resolve_prior(prior).bound(name, self._encode, {})
        self.kl_weight, self.free_bits = _check_weight("kl_weight", kl_weight), _check_weight("free_bits", free_bits)
        if free_bits > 0 and (covariance != "diagonal" or not isinstance(self.prior, NormalPrior)):
            raise ValueError(
                f"free_bits: expected 0 with {covariance} covariance and a {type(self.prior).__name__}, whose KL does "
                f'not split into latent dimensions, got {free_bits!r}; use covariance="diagonal" with a normal prior, '
                "or kl_weight"
            )
        self._parameters: Mapping[str, Any] = {}

    def _resolve_prior(self, prior: Any) -> Prior:
        if isinstance(prior, str) and prior == "standard":
            return NormalPrior(self.latent_size)
        if not isinstance(prior, Prior):
            raise TypeError(
                f'prior: {type(self).__name__} expected "standard" or a prior such as MixturePrior, got {prior!r}'
            )
        if prior.latent_size not in (None, self.latent_size):
            raise ValueError(f"prior: expected one over {self.latent_size} variables, got {prior.latent_size}")
        return prior

    def with_parameters(self: _Self, parameters: Mapping[str, Any]) -> _Self:
        """A copy that starts from learned parameters, to encode, decode, sample or train on with.

        :param parameters: from names of parameter sites to values, as ``SVI.run(...).params`` or ``SVI.get_params``;
            sites that belong to other parts of a model are allowed.
        :raises ValueError: if those of the networks are missing; on use, if their shapes do not fit.
        """
        copied = copy.copy(self)
        copied._parameters = {**self._parameters, **parameters}
        networks = {"encoder": self.encoder, "decoder": self.decoder}
        expected = [f"{self.name}.{part}" for part, network in networks.items() if learned_arrays(network)]
        if not copied._parameters.keys() >= set(expected):
            raise ValueError(f"parameters: expected at least {expected}, got {sorted(copied._parameters)}")
        copied.prior = self.prior.bound(self.name, copied._encode, copied._parameters)
        return copied

    # ------------------------------------------------------------------ distributions

    def _encode(self, x: Any, condition: Any = None) -> dist.Distribution:
        with StartFrom(self._parameters):
            network = register_network(f"{self.name}.encoder", self.encoder)
            inputs = [jnp.asarray(array) for array in (x, condition) if array is not None]
            raw = jax.vmap(lambda *one: network(*one))(*inputs)
            if getattr(raw, "ndim", None) != 2:
                raise ValueError(f"encoder: expected one vector for each datum, got shape {jnp.shape(raw)[1:]}")
            return normal_from("encoder", raw, self.latent_size, self.covariance)

    def _decode(self, z: Any, condition: Any = None) -> dist.Distribution:
        """p(x | z) of latent values of shape ``(..., latent_size)``, or ``(..., N, latent_size)`` and N conditions."""
        z = jnp.asarray(z)
        if z.ndim == 0 or z.shape[-1] != self.latent_size:
            raise ValueError(f"z: expected shape (..., {self.latent_size}), got {z.shape}")
        lead = z.shape[:-1]
        inputs = [z] if condition is None else [z, _aligned(jnp.asarray(condition), lead)]
        rows = [array.reshape(math.prod(lead), *array.shape[len(lead) :]) for array in inputs]
        with StartFrom(self._parameters):
            network = register_network(f"{self.name}.decoder", self.decoder)
            raw = jax.vmap(lambda *one: network(*one))(*rows)
            raw = jax.tree.map(lambda array: array.reshape(*lead, *array.shape[1:]), raw)
            return self.likelihood.distribution(raw, len(lead), self.name)

    def _prior(self, condition: Any = None, *, site: bool = False) -> dist.Distribution:
        made = self.prior.site(condition) if site else self.prior.distribution(condition)
        if made.event_shape != (self.latent_size,):
            raise ValueError(f"prior: expected event shape ({self.latent_size},), got {made.event_shape}")
        return made

    def _sample(self, shape: tuple[int, ...], condition: Any, rng_key: Any) -> jax.Array:
        keys = jax.random.split(require_key(f"{type(self).__name__}.sample", rng_key), 3)
        with handlers.seed(rng_seed=keys[0]):
            prior = self._prior(condition)
        if condition is not None:
            prior = prior.expand((len(condition),))
        z = prior.sample(keys[1], tuple(shape))
        return self._decode(z, condition).sample(keys[2])

    # ------------------------------------------------------------------ model and guide

    def _model(self, x: Any, condition: Any, size: Any, subsample_size: Any, kl_weight: Any) -> Any:
        x = None if x is None else self._check_data(x)
        plate = plan_plate(x, condition, size, subsample_size)
        with numpyro.plate("data", plate.size, plate.subsample_size) as index:
            x, condition = plate.select(x, index), plate.select(condition, index)
            with self._weighted(self._weight(kl_weight)):
                z = numpyro.sample("z", self._prior(condition, site=True))
            return numpyro.sample("x", self._decode(z, condition), obs=x)

    def _guide(self, x: Any, condition: Any, size: Any, subsample_size: Any, kl_weight: Any) -> Any:
        if x is None:
            raise ValueError("x: the guide expected data to encode, got None")
        x = self._check_data(x)
        plate = plan_plate(x, condition, size, subsample_size)
        weight = self._weight(kl_weight)
        with numpyro.plate("data", plate.size, plate.subsample_size) as index:
            x, condition = plate.select(x, index), plate.select(condition, index)
            posterior = self._encode(x, condition)
            with self._weighted(weight):
                z = numpyro.sample("z", posterior)
            if self._is_modified(weight) and isinstance(self.prior, NormalPrior):
                prior = self._prior(condition)
                drawn = prior.log_prob(z) - posterior.log_prob(z)
                numpyro.factor(f"{self.name}.kl", drawn + weight * self._penalty(posterior, prior))
        return z

    def _check_data(self, x: Any) -> jax.Array:
        x = jnp.asarray(x)
        if x.ndim == 0 or len(x) == 0:
            raise ValueError(f"x: expected data of shape (N, ...), got {x.shape}")
        self.likelihood.check(x)
        return x

    def _weight(self, kl_weight: Any) -> Any:
        return self.kl_weight if kl_weight is None else _check_weight("kl_weight", kl_weight)

    def _is_modified(self, weight: Any) -> bool:
        return self.free_bits > 0 or not not_jax_tracer(weight) or weight != 1

    def _weighted(self, weight: Any) -> Any:
        """Handler of the site ``z`` where the weighted KL is a Monte Carlo estimate."""
        if isinstance(self.prior, NormalPrior) or not self._is_modified(weight):
            return contextlib.nullcontext()
        if not_jax_tracer(weight) and weight == 0:
            return handlers.mask(mask=False)
        return handlers.scale(scale=weight)

    def _penalty(self, posterior: Any, prior: Any) -> jax.Array:
        """The KL of each datum in closed form, or with free bits that of the minibatch, which its data share."""
        if self.free_bits == 0:
            return divergence(posterior, prior)
        each = divergence_by_dimension(posterior, prior).mean(0, keepdims=True)
        return jnp.maximum(self.free_bits, each).sum(-1)


class PlatePlan(NamedTuple):
    """Sizes of a plate over data, and whether its indices select rows of them."""

    size: int
    subsample_size: int
    selects: bool

    def select(self, array: Any, index: Any) -> Any:
        """The rows of the plate."""
        return array[index] if self.selects and array is not None else array


def plan_plate(x: Any, condition: Any, size: Any, subsample_size: Any) -> PlatePlan:
    """The plate of all rows, of a random subsample of them, or of a minibatch that stands for ``size`` data."""
    counts = [len(array) for array in (x, condition) if array is not None]
    if len(set(counts)) > 1:
        raise ValueError(f"condition: expected one row for each of the {counts[0]} data, got {counts[1]}")
    for name, value in (("size", size), ("subsample_size", subsample_size)):
        if value is not None:
            check_positive_int(name, value)
    if not counts and size is None:
        raise ValueError("size: expected the number of data to draw where x is None, got None")
    size = counts[0] if size is None else size
    count = counts[0] if counts else size
    if count > size:
        raise ValueError(f"size: expected at least the number of rows, {count}, got {size}")
    if count < size:  # a minibatch already
        if subsample_size not in (None, count):
            raise ValueError(
                f"subsample_size: expected None, because x holds {count} of {size} data and so is a minibatch already, "
                f"got {subsample_size}"
            )
        return PlatePlan(size, count, False)
    if subsample_size is not None and subsample_size > size:
        raise ValueError(f"subsample_size: expected at most the {size} data given, got {subsample_size}")
    return PlatePlan(size, size if subsample_size is None else subsample_size, subsample_size not in (None, size))


def _aligned(condition: jax.Array, lead: tuple[int, ...]) -> jax.Array:
    """One condition for each z of batch shape ``lead``."""
    if condition.ndim == 0 or lead[-1:] != condition.shape[:1]:
        raise ValueError(
            f"condition: expected shape (N, ...) for z of batch shape {lead}, whose last entry is N, got "
            f"{condition.shape}"
        )
    return jnp.broadcast_to(condition, (*lead, *condition.shape[1:]))


def _check_weight(name: str, value: Any) -> Any:
    if isinstance(value, jax.Array) and value.ndim == 0:
        if not not_jax_tracer(value):
            return value
        value = float(value)
    check_between(name, value, 0, 1e30)
    return value
