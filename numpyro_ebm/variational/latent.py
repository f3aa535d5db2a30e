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
from collections.abc import Callable
from typing import Any, Literal, Self, TypeAlias

import jax
import jax.numpy as jnp
import numpyro
from jax.typing import ArrayLike
from numpyro import handlers
from numpyro.distributions import Distribution
from numpyro.util import not_jax_tracer

import _ppl_ebm.autoencoders as shared
from _ppl_ebm.calls import show_constructor, shows_its_call
from _ppl_ebm.checks import check_between, check_choice, check_positive_int
from _ppl_ebm.likelihoods import DecoderOutput, check_made, not_a_number
from _ppl_ebm.normals import COVARIANCES, Covariance, EncoderOutput, check_encoder_output
from _ppl_ebm.plates import check_rows, count_rows, plan_plate, rows_of
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.types import Key, PyTree
from numpyro_ebm.variational.likelihoods import Likelihood, of_data, resolve_likelihood
from numpyro_ebm.variational.networks import (
    Network,
    Parameters,
    StartFrom,
    apply_network,
    check_network,
    describe,
    has_statistics,
    in_evaluation,
    learned_arrays,
    state_name,
)
from numpyro_ebm.variational.normal import kl_divergence, kl_divergence_by_dimension, normal_from
from numpyro_ebm.variational.priors import NormalPrior, Prior

#: What ``prior=`` accepts; a network and ``None`` in a :class:`CVAE` alone.
PriorLike: TypeAlias = Prior | Literal["standard"] | Network | None
#: What ``likelihood=`` accepts.
LikelihoodLike: TypeAlias = Likelihood | str | float | Callable[[PyTree], Distribution]
#: What ``kl_weight=`` accepts; it may be traced.
Weight: TypeAlias = float | jax.Array


class LatentModel:
    """The base of :class:`VAE` and :class:`CVAE`, whose parameters are explained there.

    Measures and pictures use both through the methods that take a ``condition``, which is ``None`` for the plain one.
    """

    #: Values that parameter sites start from, by name.
    learned: Parameters

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        show_constructor(cls)

    @shows_its_call
    def __init__(
        self,
        encoder: Network,
        decoder: Network,
        latent_size: int,
        *,
        prior: PriorLike = "standard",
        likelihood: LikelihoodLike = "bernoulli",
        decoder_output: DecoderOutput = "logits",
        encoder_output: EncoderOutput = "log_scale",
        covariance: Covariance = "diagonal",
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        name: str | None = None,
    ) -> None:
        owner = type(self).__name__
        self.encoder, self.decoder = check_network("encoder", encoder), check_network("decoder", decoder)
        check_positive_int("latent_size", latent_size)
        check_choice("covariance", owner, covariance, COVARIANCES)
        self.name = shared.check_name(owner.lower() if name is None else name)
        self.latent_size, self.covariance, self.learned = latent_size, covariance, {}
        check_encoder_output(owner, encoder_output, covariance)
        self.encoder_output = encoder_output
        self.likelihood = resolve_likelihood(likelihood, owner, decoder_output)
        self.prior = self._resolve_prior(prior).for_model(self)
        self.kl_weight, self.free_bits = _check_weight("kl_weight", kl_weight), _check_weight("free_bits", free_bits)
        splits = covariance == "diagonal" and self.prior.is_normal
        shared.check_free_bits(free_bits, covariance, type(self.prior).__name__, splits)
        self.doubts = shared.Doubts()

    def _resolve_prior(self, prior: PriorLike) -> Prior:
        if isinstance(prior, str) and prior == "standard":
            return NormalPrior(self.latent_size)
        if not isinstance(prior, Prior):
            raise shared.not_a_prior(type(self).__name__, prior)
        if prior.latent_size is not None:
            shared.check_prior_size(prior.latent_size, self.latent_size)
        return prior

    def with_parameters(self, parameters: Parameters) -> Self:
        """A copy that starts from learned parameters, to encode, decode, sample or train on with.

        :param parameters: from names of parameter sites to values, as ``SVI.run(...).params`` or ``SVI.get_params``;
            with running statistics of flax.nnx modules these too, ``{**result.params, **result.state.mutable_state}``.
            Sites that belong to other parts of a model are allowed.
        :raises ValueError: if those of the networks are missing; on use, if their shapes do not fit.
        """
        copied = copy.copy(self)
        copied.learned = {**self.learned, **parameters}
        shared.check_parameters(copied.learned, *self._expected_parameters())
        copied.prior = self.prior.for_model(copied)
        return copied

    def _expected_parameters(self) -> tuple[list[str], list[str]]:
        """Names of the sites that the networks learn, and of those with their running statistics."""
        networks = {f"{self.name}.encoder": self.encoder, f"{self.name}.decoder": self.decoder}
        networks |= {self.prior.site_name(name): network for name, network in self.prior.networks().items()}
        learned = [name for name, network in networks.items() if learned_arrays(network)]
        return learned, [state_name(name) for name, network in networks.items() if has_statistics(network)]

    def in_evaluation(self) -> Self:
        """A copy whose flax.nnx modules are as after ``.eval()``, as measures use it; with :attr:`learned` values."""
        copied = copy.copy(self)
        copied.encoder, copied.decoder = in_evaluation(self.encoder), in_evaluation(self.decoder)
        copied.prior = self.prior.in_evaluation().for_model(copied)
        return copied

    def __repr__(self) -> str:
        networks = f"encoder: {describe(self.encoder)}, decoder: {describe(self.decoder)}"
        parts = f"prior={self.prior!r}, likelihood={self.likelihood!r}, covariance={self.covariance!r}"
        parts += "" if self.encoder_output == "log_scale" else f", encoder_output={self.encoder_output!r}"
        weights = f"kl_weight={self.kl_weight}, free_bits={self.free_bits}, name={self.name!r}"
        return f"{type(self).__name__}({networks}, latent_size={self.latent_size}, {parts}, {weights})"

    # ------------------------------------------------------------------ distributions

    def latent_given_data(self, x: ArrayLike, condition: ArrayLike | None = None) -> Distribution:
        """q(z | x), or q(z | x, c), batch shape ``(N,)``.

        :param x: shape ``(N, *event_shape)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        given = {"x": x} if condition is None else {"x": x, "condition": condition}
        inputs = {name: jnp.asarray(array) for name, array in given.items()}
        with StartFrom(self.learned):
            raw = apply_network(f"{self.name}.encoder", self.encoder, *inputs.values())
        if isinstance(raw, jax.Array) and raw.ndim != 2:
            raise ValueError(f"encoder: expected one vector for each datum, got shape {raw.shape[1:]}")
        size, kind = self.latent_size, self.encoder_output
        return normal_from("encoder", raw, size, self.covariance, encoder_output=kind, inputs=inputs)

    def data_given_latent(self, z: ArrayLike, condition: ArrayLike | None = None) -> Distribution:
        """p(x | z), or p(x | z, c), batch shape ``(...)``.

        :param z: shape ``(..., latent_size)``, with N conditions ``(..., N, latent_size)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        z = self.check_latent(z)
        lead = z.shape[:-1]
        inputs = [z] if condition is None else [z, _aligned(jnp.asarray(condition), lead)]
        rows = [array.reshape(math.prod(lead), *array.shape[len(lead) :]) for array in inputs]
        with StartFrom(self.learned):
            raw = apply_network(f"{self.name}.decoder", self.decoder, *rows)
            raw = jax.tree.map(lambda array: array.reshape(*lead, *array.shape[1:]), raw)
            self._check_decoded(raw, z)
            made = self.likelihood.distribution(raw, self.name)
        check_made(made.batch_shape, lead)
        return of_data(made, len(made.batch_shape) - len(lead))

    def _check_decoded(self, raw: PyTree, z: jax.Array) -> None:
        """Refuse NaN from finite z, and warn of logits that look like probabilities, unless they are traced."""
        arrays = [array for array in jax.tree.leaves(raw) if not_jax_tracer(array)]
        if any(jnp.isnan(array).any() for array in arrays) and not_jax_tracer(z) and jnp.isfinite(z).all():
            raise not_a_number()
        if self.likelihood.reads_logits and arrays:
            num_rows = math.prod(z.shape[:-1])
            find_range = lambda: (float(arrays[0].min()), float(arrays[0].max()))
            self.doubts.of_logits(find_range, arrays[0].size // max(num_rows, 1), num_rows)

    def latent_prior(self, condition: ArrayLike | None = None) -> Distribution:
        """p(z), or p(z | c), batch shape ``()`` or ``(N,)``.

        :param condition: shape ``(N, *condition_shape)``.
        """
        return self._check_prior(self.prior.distribution(condition))

    def decoded_like(self, x: ArrayLike, decoded: Distribution) -> Distribution:
        """What a decoder gives for data itself, refused if it is over another shape than they have."""
        shared.check_data_shape(jnp.shape(x), decoded.event_shape)
        return decoded

    def check_latent(self, z: ArrayLike) -> jax.Array:
        """Latent variables as an array, refused unless there are ``latent_size`` of them."""
        array = jnp.asarray(z)
        shared.check_latent(array.shape, self.latent_size)
        return array

    def check_data(self, x: ArrayLike) -> jax.Array:
        """Data as an array, refused if they have no rows, or no density under the likelihood."""
        array = check_rows("x", jnp.asarray(x))
        self.likelihood.check(array)
        return array

    def _check_prior(self, prior: Distribution) -> Distribution:
        shared.check_prior(prior.event_shape, self.latent_size)
        return prior

    def _sample(self, shape: tuple[int, ...], condition: jax.Array | None, rng_key: Key | None) -> jax.Array:
        keys = jax.random.split(require_key(f"{type(self).__name__}.sample", rng_key), 3)
        self.check_prior_learned(condition)
        with handlers.seed(rng_seed=keys[0]):
            prior = self.latent_prior(condition)
        if condition is not None:
            prior = prior.expand((len(condition),))
        z = prior.sample(keys[1], tuple(shape))
        return self.data_given_latent(z, condition).sample(keys[2])

    # ------------------------------------------------------------------ model and guide

    def _model(
        self,
        x: ArrayLike | None,
        condition: jax.Array | None,
        size: int | None,
        subsample_size: int | None,
        kl_weight: Weight | None,
    ) -> jax.Array:
        data = None if x is None else self.check_data(x)
        plan = plan_plate(count_rows(data, condition), size, subsample_size)
        with numpyro.plate("data", plan.size, plan.subsample_size) as index:
            data, condition = _rows(data, index), _rows(condition, index)
            with self._weighted(self._weight(kl_weight)):
                z = numpyro.sample("z", self._check_prior(self.prior.site(condition)))
            likelihood = self.data_given_latent(z, condition)
            if data is not None:
                shared.check_data_shape(data.shape, likelihood.event_shape)
            return numpyro.sample("x", likelihood, obs=data)

    def _guide(
        self,
        x: ArrayLike | None,
        condition: jax.Array | None,
        size: int | None,
        subsample_size: int | None,
        kl_weight: Weight | None,
    ) -> jax.Array:
        if x is None:
            raise shared.nothing_to_encode()
        data, weight = self.check_data(x), self._weight(kl_weight)
        concrete = float(weight) if not_jax_tracer(weight) else None
        self.doubts.of_weight(concrete, kl_weight is None, lambda: self._learns_prior(condition))
        plan = plan_plate(count_rows(data, condition), size, subsample_size)
        with numpyro.plate("data", plan.size, plan.subsample_size) as index:
            condition = _rows(condition, index)
            posterior = self.latent_given_data(rows_of(data, index), condition)
            with self._weighted(weight):
                z = numpyro.sample("z", posterior)
            if self._is_modified(weight) and self.prior.is_normal:
                prior = self.latent_prior(condition)
                drawn = prior.log_prob(z) - posterior.log_prob(z)
                numpyro.factor(f"{self.name}.kl", drawn + weight * self._penalty(posterior, prior))
        return z

    def _learns_prior(self, condition: jax.Array | None) -> bool:
        """Whether the prior has parameters besides the encoder's."""
        with handlers.block(), handlers.trace() as trace, handlers.seed(rng_seed=0):
            self.prior.distribution(condition)
        learned = {name for name, site in trace.items() if site["type"] == "param"}
        return bool(learned - {f"{self.name}.encoder"})

    def check_prior_learned(self, condition: jax.Array | None = None) -> None:
        """Warn, before the prior is used, if it was left untrained by a ``kl_weight`` that was always 0.

        :param condition: shape ``(N, *condition_shape)``.
        """
        self.doubts.of_prior(lambda: self._learns_prior(condition))

    def _weight(self, kl_weight: Weight | None) -> Weight:
        return self.kl_weight if kl_weight is None else _check_weight("kl_weight", kl_weight)

    def _is_modified(self, weight: Weight) -> bool:
        return bool(self.free_bits > 0 or not not_jax_tracer(weight) or weight != 1)

    def _weighted(self, weight: Weight) -> contextlib.AbstractContextManager[object]:
        """Handler of the site ``z`` where the weighted KL is a Monte Carlo estimate."""
        if self.prior.is_normal or not self._is_modified(weight):
            return contextlib.nullcontext()
        if not_jax_tracer(weight) and weight == 0:
            return handlers.mask(mask=False)
        return handlers.scale(scale=weight)

    def _penalty(self, posterior: Distribution, prior: Distribution) -> jax.Array:
        """The KL of each datum in closed form, or with free bits that of the minibatch, which its data share."""
        if self.free_bits == 0:
            return kl_divergence(posterior, prior)
        each = kl_divergence_by_dimension(posterior, prior).mean(0, keepdims=True)
        return jnp.maximum(self.free_bits, each).sum(-1)


def _rows(array: jax.Array | None, index: jax.Array) -> jax.Array | None:
    return None if array is None else rows_of(array, index)


def _aligned(condition: jax.Array, lead: tuple[int, ...]) -> jax.Array:
    """One condition for each z of batch shape ``lead``."""
    shared.check_aligned(condition.shape, lead)
    return jnp.broadcast_to(condition, (*lead, *condition.shape[1:]))


def _check_weight(name: str, value: Weight) -> Weight:
    if isinstance(value, jax.Array) and value.ndim == 0:
        if not not_jax_tracer(value):
            return value
        value = float(value)
    check_between(name, value, 0, 1e30)
    return value
