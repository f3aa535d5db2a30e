"""What plain and conditional variational autoencoders share: their parts, the plate, model and guide.

The model is the generative one, ``z ~ prior`` and ``x ~ likelihood(decoder(z))`` at the sites ``"z"`` and ``"x"`` in
the plate ``"data"``; the guide draws ``"z"`` from the encoder. Networks are modules that take a batch, whose parameters
Pyro knows by names such as ``"<name>.encoder$$$0.weight"``.

The objective under ``Trace_ELBO`` is, summed over data and scaled up from minibatches,

    E_q log p(x | z) - kl_weight * penalty,        penalty = KL(q(z | x) | p(z)).

With ``kl_weight=1`` and ``free_bits=0``, the ELBO, the KL is a Monte Carlo difference of log-densities: it has no
variance where the guide is exact (``TraceMeanField_ELBO`` takes the closed form where Pyro has one). Otherwise it is
the closed form where the prior is a ``NormalPrior`` (the guide then has a factor ``<name>.kl``, which replaces the
difference by the closed form, and the model stays the generative one), and Monte Carlo elsewhere (the site ``"z"`` is
scaled by ``kl_weight`` in model and guide).
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution

import _ppl_ebm.autoencoders as shared
from _ppl_ebm.calls import show_constructor, shows_its_call
from _ppl_ebm.checks import check_between, check_choice, check_positive_int
from _ppl_ebm.likelihoods import DecoderOutput, check_made, not_a_number
from _ppl_ebm.normals import COVARIANCES, Covariance, EncoderOutput, check_encoder_output
from _ppl_ebm.plates import PlatePlan, check_rows, count_rows, plan_plate, rows_of
from pyro_ebm.distributions.batching import is_concrete
from pyro_ebm.variational.likelihoods import Likelihood, Raw, of_data, resolve_likelihood
from pyro_ebm.variational.networks import check_network, move_to, register_parts
from pyro_ebm.variational.normal import kl_divergence, kl_divergence_by_dimension, normal_from
from pyro_ebm.variational.priors import NormalPrior, Prior

#: What ``prior=`` accepts; a network and ``None`` in a :class:`CVAE` alone.
PriorLike: TypeAlias = Prior | Literal["standard"] | torch.nn.Module | None
#: What ``likelihood=`` accepts.
LikelihoodLike: TypeAlias = Likelihood | str | float | Callable[[Raw], TorchDistribution]


class LatentModel(torch.nn.Module):
    """The base of :class:`VAE` and :class:`CVAE`, whose parameters are explained there.

    Measures and pictures use both through the methods that take a ``condition``, which is ``None`` for the plain one.
    """

    prior: Prior
    likelihood: Likelihood

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        show_constructor(cls)

    @shows_its_call
    def __init__(
        self,
        encoder: torch.nn.Module,
        decoder: torch.nn.Module,
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
        super().__init__()
        owner = type(self).__name__
        self.encoder, self.decoder = check_network("encoder", encoder), check_network("decoder", decoder)
        check_positive_int("latent_size", latent_size)
        check_choice("covariance", owner, covariance, COVARIANCES)
        self.name = shared.check_name(owner.lower() if name is None else name, reserved="$$$")
        self.latent_size, self.covariance = latent_size, covariance
        check_encoder_output(owner, encoder_output, covariance)
        self.encoder_output = encoder_output
        self.likelihood = resolve_likelihood(likelihood, owner, decoder_output)
        if isinstance(likelihood, (str, float, int)):
            move_to(self.likelihood, self.encoder, self.decoder)
        self.prior = self._resolve_prior(prior).for_model(self)
        self.kl_weight, self.free_bits = _check_weight("kl_weight", kl_weight), _check_weight("free_bits", free_bits)
        splits = covariance == "diagonal" and self.prior.is_normal
        shared.check_free_bits(free_bits, covariance, type(self.prior).__name__, splits)
        self.doubts = shared.Doubts()

    def _resolve_prior(self, prior: PriorLike) -> Prior:
        if isinstance(prior, str) and prior == "standard":
            made = NormalPrior(self.latent_size)
            move_to(made, self.encoder, self.decoder)
            return made
        if not isinstance(prior, Prior):
            raise shared.not_a_prior(type(self).__name__, prior)
        if prior.latent_size is not None:
            shared.check_prior_size(prior.latent_size, self.latent_size)
        return prior

    def extra_repr(self) -> str:
        weights = f"kl_weight={self.kl_weight}, free_bits={self.free_bits}, name={self.name!r}"
        encoder = "" if self.encoder_output == "log_scale" else f"encoder_output={self.encoder_output!r}, "
        return f"latent_size={self.latent_size}, covariance={self.covariance!r}, {encoder}{weights}"

    # ------------------------------------------------------------------ distributions

    def latent_given_data(self, x: torch.Tensor, condition: torch.Tensor | None = None) -> TorchDistribution:
        """q(z | x), or q(z | x, c), batch shape ``(N,)``.

        :param x: shape ``(N, *event_shape)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        inputs = {"x": x} if condition is None else {"x": x, "condition": condition}
        output = self.encoder(*inputs.values())
        size, kind = self.latent_size, self.encoder_output
        return normal_from("encoder", output, size, self.covariance, encoder_output=kind, inputs=inputs)

    def data_given_latent(self, z: torch.Tensor, condition: torch.Tensor | None = None) -> TorchDistribution:
        """p(x | z), or p(x | z, c), batch shape ``(...)``.

        :param z: shape ``(..., latent_size)``, with N conditions ``(..., N, latent_size)``.
        :param condition: shape ``(N, *condition_shape)``.
        """
        lead = self.check_latent(z).shape[:-1]
        given = () if condition is None else (_aligned(condition, lead),)
        raw = _unflatten(self.decoder(z.reshape(-1, self.latent_size), *given), lead)
        self._check_decoded(raw, z)
        made = self.likelihood.distribution(raw)
        check_made(made.batch_shape, lead)
        return of_data(made, len(made.batch_shape) - len(lead))

    def _check_decoded(self, raw: Raw, z: torch.Tensor) -> None:
        """Refuse NaN from finite z, and warn of logits that look like probabilities, unless they are traced."""
        tensors = [tensor for tensor in ([raw] if isinstance(raw, torch.Tensor) else raw) if is_concrete(tensor)]
        if any(torch.isnan(tensor).any() for tensor in tensors) and is_concrete(z) and torch.isfinite(z).all():
            raise not_a_number()
        if self.likelihood.reads_logits and tensors:
            num_rows = math.prod(z.shape[:-1])
            find_range = lambda: (tensors[0].min().item(), tensors[0].max().item())
            self.doubts.of_logits(find_range, tensors[0].numel() // max(num_rows, 1), num_rows)

    def latent_prior(self, condition: torch.Tensor | None = None) -> TorchDistribution:
        """p(z), or p(z | c), batch shape ``()`` or ``(N,)``.

        :param condition: shape ``(N, *condition_shape)``.
        """
        return self._check_prior(self.prior.distribution(condition))

    def decoded_like(self, x: torch.Tensor, decoded: TorchDistribution) -> TorchDistribution:
        """What a decoder gives for data itself, refused if it is over another shape than they have."""
        shared.check_data_shape(x.shape, decoded.event_shape)
        return decoded

    def check_latent(self, z: torch.Tensor) -> torch.Tensor:
        """Latent variables themselves, refused unless there are ``latent_size`` of them."""
        if not isinstance(z, torch.Tensor):
            raise ValueError(f"z: expected shape (..., {self.latent_size}), got {type(z).__name__}")
        shared.check_latent(z.shape, self.latent_size)
        return z

    def check_data(self, x: torch.Tensor) -> torch.Tensor:
        """Data themselves, refused if they have no rows, or no density under the likelihood."""
        tensor = check_floating("x", x)
        if is_concrete(tensor):
            self.likelihood.check(tensor)
        return tensor

    def _check_prior(self, prior: TorchDistribution) -> TorchDistribution:
        shared.check_prior(prior.event_shape, self.latent_size)
        return prior

    @torch.no_grad()
    def _sample(self, shape: tuple[int, ...], condition: torch.Tensor | None) -> torch.Tensor:
        self.check_prior_learned()
        prior = self.latent_prior(condition)
        if condition is not None:
            prior = prior.expand(torch.Size((len(condition),)))
        return self.data_given_latent(prior.sample(torch.Size(shape)), condition).sample()

    # ------------------------------------------------------------------ model and guide

    def _model(
        self,
        x: torch.Tensor | None,
        condition: torch.Tensor | None,
        size: int | None,
        subsample_size: int | None,
        kl_weight: float | None,
    ) -> torch.Tensor:
        parts = {"decoder": self.decoder, "prior": self.prior, "likelihood": self.likelihood}
        register_parts(self, self.name, **parts, **({"encoder": self.encoder} if self.prior.uses_encoder else {}))
        data = None if x is None else check_floating("x", x)
        plan = plan_plate(count_rows(data, condition), size, subsample_size)
        with data_plate("data", plan, condition if data is None else data) as index:
            data, condition = _rows(data, index), _rows(condition, index)
            with self._weighted(self._weight(kl_weight)):
                z = pyro.sample("z", self._check_prior(self.prior.site(condition)))
            likelihood = self.data_given_latent(z, condition)
            if data is not None:
                shared.check_data_shape(self.check_data(data).shape, likelihood.event_shape)
            return pyro.sample("x", likelihood, obs=data)

    def _guide(
        self,
        x: torch.Tensor | None,
        condition: torch.Tensor | None,
        size: int | None,
        subsample_size: int | None,
        kl_weight: float | None,
    ) -> torch.Tensor:
        if x is None:
            raise shared.nothing_to_encode()
        register_parts(self, self.name, encoder=self.encoder)
        data, weight = check_floating("x", x), self._weight(kl_weight)
        self.doubts.of_weight(weight, kl_weight is None, self._learns_prior)
        with data_plate("data", plan_plate(count_rows(data, condition), size, subsample_size), data) as index:
            condition = _rows(condition, index)
            posterior = self.latent_given_data(rows_of(data, index), condition)
            with self._weighted(weight):
                z = pyro.sample("z", posterior)
            if self._is_modified(weight) and self.prior.is_normal:
                prior = self.latent_prior(condition)
                drawn = prior.log_prob(z) - posterior.log_prob(z)
                pyro.factor(f"{self.name}.kl", drawn + weight * self._penalty(posterior, prior), has_rsample=True)
        return z

    def _learns_prior(self) -> bool:
        """Whether the prior has parameters of its own."""
        return any(parameter.requires_grad for parameter in self.prior.parameters())

    def check_prior_learned(self) -> None:
        """Warn, before the prior is used, if it was left untrained by a ``kl_weight`` that was always 0."""
        self.doubts.of_prior(self._learns_prior)

    def _weight(self, kl_weight: float | None) -> float:
        return self.kl_weight if kl_weight is None else _check_weight("kl_weight", kl_weight)

    def _is_modified(self, weight: float) -> bool:
        return self.free_bits > 0 or weight != 1

    def _weighted(self, weight: float) -> contextlib.AbstractContextManager[object]:
        """Handler of the site ``z`` where the weighted KL is a Monte Carlo estimate."""
        if self.prior.is_normal or not self._is_modified(weight):
            return contextlib.nullcontext()
        return poutine.mask(mask=False) if weight == 0 else poutine.scale(scale=weight)

    def _penalty(self, posterior: TorchDistribution, prior: TorchDistribution) -> torch.Tensor:
        """The KL of each datum in closed form, or with free bits that of the minibatch, which its data share."""
        if self.free_bits == 0:
            return kl_divergence(posterior, prior)
        each = kl_divergence_by_dimension(posterior, prior).mean(-2, keepdim=True)
        return each.clamp(min=self.free_bits).sum(-1)


def data_plate(name: str, plan: PlatePlan, like: torch.Tensor | None) -> pyro.plate:
    """The plate of a plan, whose indices are where ``like`` is."""
    device = None if like is None else like.device
    if plan.is_minibatch:
        index = torch.arange(plan.subsample_size, device=device)
        return pyro.plate(name, plan.size, subsample=index, dim=-1)
    return pyro.plate(name, plan.size, plan.subsample_size, dim=-1, device=device)


def check_tensor(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, refused unless it has rows."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor of shape (N, ...), got {type(tensor).__name__}")
    return check_rows(name, tensor)


def check_floating(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, refused unless it has rows of floating-point numbers."""
    if not check_tensor(name, tensor).is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {tensor.dtype}")
    return tensor


def _rows(tensor: torch.Tensor | None, index: torch.Tensor) -> torch.Tensor | None:
    return None if tensor is None else rows_of(tensor, index)


def _aligned(condition: torch.Tensor, lead: torch.Size) -> torch.Tensor:
    """One condition for each z of batch shape ``lead``, in one batch dimension."""
    shared.check_aligned(condition.shape, lead)
    return condition.expand(*lead, *condition.shape[1:]).reshape(-1, *condition.shape[1:])


def _unflatten(raw: Raw, lead: torch.Size) -> Raw:
    """A network's output, one tensor or several, for a batch of the shape ``lead``."""
    if isinstance(raw, (tuple, list)):
        return tuple(_reshaped(part, lead) for part in raw)
    return _reshaped(raw, lead)


def _reshaped(raw: Raw, lead: torch.Size) -> torch.Tensor:
    if not isinstance(raw, torch.Tensor):
        raise TypeError(f"decoder: expected a network that returns tensors, got a {type(raw).__name__}")
    if raw.shape[:1] != (math.prod(lead),):
        raise ValueError(f"decoder: expected one output for each of {math.prod(lead)} z, got shape {tuple(raw.shape)}")
    return raw.reshape(*lead, *raw.shape[1:])


def _check_weight(name: str, value: float) -> float:
    check_between(name, value, 0, 1e30)
    return float(value)
