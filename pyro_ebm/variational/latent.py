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
import weakref
from typing import Any

import pyro
import torch
from pyro import poutine

from _ppl_ebm.checks import check_between, check_positive_int
from pyro_ebm.distributions.batching import is_concrete
from pyro_ebm.variational import normal
from pyro_ebm.variational.likelihoods import resolve_likelihood
from pyro_ebm.variational.priors import NormalPrior, Prior, VampPrior

# Pyro knows parameters by their names alone: which model uses a name.
_OWNERS: "weakref.WeakValueDictionary[str, LatentModel]" = weakref.WeakValueDictionary()


class LatentModel(torch.nn.Module):
    """The base of :class:`VAE` and :class:`CVAE`, whose parameters are explained there.

    Private methods take a ``condition``, which is ``None`` for the plain one.
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
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = _check_network("encoder", encoder), _check_network("decoder", decoder)
        check_positive_int("latent_size", latent_size)
        name = type(self).__name__.lower() if name is None else name
        if not isinstance(name, str) or not name or "$$$" in name:
            raise ValueError(f'name: expected a string that is not empty, without "$$$", got {name!r}')
        normal.check_covariance(covariance)
        self.latent_size, self.covariance, self.name = latent_size, covariance, name
        self.likelihood = resolve_likelihood(likelihood)
        self.prior = self._resolve_prior(prior)
        self.prior.bind(self._encode)
        if not callable(likelihood):
            self._like_networks(self.likelihood)
        check_between("kl_weight", kl_weight, 0, 1e30)
        check_between("free_bits", free_bits, 0, 1e30)
        self.kl_weight, self.free_bits = float(kl_weight), float(free_bits)
        if free_bits > 0 and (covariance != "diagonal" or not isinstance(self.prior, NormalPrior)):
            raise ValueError(
                f"free_bits: expected 0 with {covariance} covariance and a {type(self.prior).__name__}, whose KL does "
                f'not split into latent dimensions, got {free_bits!r}; use covariance="diagonal" with a normal prior, '
                "or kl_weight"
            )

    def _resolve_prior(self, prior: Any) -> Prior:
        if isinstance(prior, str) and prior == "standard":
            made = NormalPrior(self.latent_size)
            self._like_networks(made)
            return made
        if not isinstance(prior, Prior):
            raise TypeError(
                f'prior: {type(self).__name__} expected "standard" or a prior such as MixturePrior, got {prior!r}'
            )
        if prior.latent_size not in (None, self.latent_size):
            raise ValueError(f"prior: expected one over {self.latent_size} variables, got {prior.latent_size}")
        return prior

    def _like_networks(self, part: torch.nn.Module) -> None:
        """Move a part to the networks' type and device."""
        networks = (*self.encoder.parameters(), *self.decoder.parameters())
        like = next((tensor for tensor in networks if tensor.is_floating_point()), torch.empty(0))
        part.to(like.device, like.dtype)

    # ------------------------------------------------------------------ distributions

    def _encode(self, x: torch.Tensor, condition: Any = None) -> Any:
        output = self.encoder(x) if condition is None else self.encoder(x, condition)
        return normal.normal_from("encoder", output, self.latent_size, self.covariance)

    def _decode(self, z: Any, condition: Any = None) -> Any:
        """p(x | z) of latent values of shape ``(..., latent_size)``, or ``(..., N, latent_size)`` and N conditions."""
        z = self._check_latent(z)
        lead = z.shape[:-1]
        given = () if condition is None else (_aligned(condition, lead),)
        raw = self.decoder(z.reshape(-1, self.latent_size), *given)
        distribution: Any = self.likelihood(_unflatten(raw, lead))
        batch_shape = distribution.batch_shape
        if batch_shape[: len(lead)] != lead:
            raise ValueError(
                f"likelihood: expected a distribution with the leading batch shape {tuple(lead)}, got "
                f"{tuple(batch_shape)}"
            )
        return distribution.to_event(len(batch_shape) - len(lead))

    def _prior(self, condition: Any = None, *, site: bool = False) -> Any:
        prior: Any = self.prior.site(condition) if site else self.prior.distribution(condition)
        if tuple(prior.event_shape) != (self.latent_size,):
            raise ValueError(f"prior: expected event shape ({self.latent_size},), got {tuple(prior.event_shape)}")
        return prior

    def _check_latent(self, z: Any) -> torch.Tensor:
        if not isinstance(z, torch.Tensor) or z.shape[-1:] != (self.latent_size,):
            got = tuple(z.shape) if isinstance(z, torch.Tensor) else type(z).__name__
            raise ValueError(f"z: expected shape (..., {self.latent_size}), got {got}")
        return z

    @torch.no_grad()
    def _sample(self, shape: tuple[int, ...], condition: Any = None) -> torch.Tensor:
        prior = self._prior(condition)
        batch = () if condition is None else (len(condition),)
        return self._decode(prior.expand(torch.Size(batch)).sample(torch.Size(shape)), condition).sample()

    # ------------------------------------------------------------------ model and guide

    def _model(self, x: Any, condition: Any, size: Any, subsample_size: Any, kl_weight: Any) -> torch.Tensor:
        vamp = ("encoder",) if isinstance(self.prior, VampPrior) else ()
        self._register("decoder", "prior", "likelihood", *vamp)
        count = self._count(x, condition, size)
        with data_plate(count, size, subsample_size, x if x is not None else condition) as index:
            rows, given = rows_of(x, index), rows_of(condition, index)
            with self._weighted(self._weight(kl_weight)):
                z = pyro.sample("z", self._prior(given, site=True))
            likelihood = self._decode(z, given)
            if rows is not None:
                self._check_data(rows, likelihood)
            return pyro.sample("x", likelihood, obs=rows)

    def _guide(self, x: Any, condition: Any, size: Any, subsample_size: Any, kl_weight: Any) -> torch.Tensor:
        if x is None:
            raise ValueError("x: the guide expected data to encode, got None")
        self._register("encoder")
        weight = self._weight(kl_weight)
        with data_plate(self._count(x, condition, size), size, subsample_size, x) as index:
            given = rows_of(condition, index)
            posterior = self._encode(rows_of(x, index), given)
            with self._weighted(weight):
                z = pyro.sample("z", posterior)
            if self._is_modified(weight) and isinstance(self.prior, NormalPrior):
                prior = self._prior(given)
                drawn = prior.log_prob(z) - posterior.log_prob(z)
                pyro.factor(f"{self.name}.kl", drawn + weight * self._penalty(posterior, prior), has_rsample=True)
            return z

    def _register(self, *parts: str) -> None:
        """Tell Pyro about the parameters of parts; where its store has some of this name, they are taken over."""
        if _OWNERS.get(self.name) is not self:
            self._claim_name()
        for part in parts:
            pyro.module(f"{self.name}.{part}", getattr(self, part), update_module_params=True)

    def _claim_name(self) -> None:
        """Refuse a name under which another model of this process keeps its parameters in Pyro's store."""
        other = _OWNERS.get(self.name)
        if other is not None:
            own = {id(parameter) for parameter in self.parameters()}
            others = {id(parameter) for parameter in other.parameters()} - own
            if any(id(parameter) in others for parameter in pyro.get_param_store().values()):
                raise ValueError(
                    f"name: another {type(other).__name__} named {self.name!r} keeps its parameters in Pyro's store "
                    "under this name, and both would share them; expected another name, or pyro.clear_param_store()"
                )
        _OWNERS[self.name] = self

    def _weight(self, kl_weight: Any) -> float:
        if kl_weight is None:
            return self.kl_weight
        check_between("kl_weight", kl_weight, 0, 1e30)
        return float(kl_weight)

    def _is_modified(self, weight: float) -> bool:
        return self.free_bits > 0 or weight != 1

    def _weighted(self, weight: float) -> Any:
        """Handler of the site ``z`` where the weighted KL is a Monte Carlo estimate."""
        if isinstance(self.prior, NormalPrior) or not self._is_modified(weight):
            return contextlib.nullcontext()
        return poutine.mask(mask=False) if weight == 0 else poutine.scale(scale=weight)

    def _penalty(self, posterior: Any, prior: Any) -> torch.Tensor:
        """The KL of each datum in closed form, or with free bits that of the minibatch, which its data share."""
        if self.free_bits == 0:
            return normal.divergence(posterior, prior)
        each = normal.divergence_by_dimension(posterior, prior).mean(-2, keepdim=True)
        return each.clamp(min=self.free_bits).sum(-1)

    def _count(self, x: Any, condition: Any, size: int | None) -> int:
        """How many data there are."""
        for name, tensor in (("x", x), ("condition", condition)):
            if tensor is not None:
                check_rows(name, tensor)
        if x is not None and not x.is_floating_point():
            raise TypeError(f"x: expected a floating-point tensor, got {x.dtype}")
        if x is not None and condition is not None and len(x) != len(condition):
            raise ValueError(f"condition: expected one row for each of the {len(x)} data, got {len(condition)}")
        if x is None and condition is None:
            if size is None:
                raise ValueError("size: expected the number of data to draw where x is None, got None")
            check_positive_int("size", size)
            return size
        return len(condition) if x is None else len(x)

    def _check_data(self, rows: torch.Tensor, likelihood: Any) -> None:
        if is_concrete(rows):
            self.likelihood.check(rows)
        if rows.shape[1:] != likelihood.event_shape:
            raise ValueError(
                f"x: the decoder's output is a distribution over shape {tuple(likelihood.event_shape)} for each datum, "
                f"got data of shape {tuple(rows.shape)}"
            )


def data_plate(count: int, size: int | None, subsample_size: int | None, like: Any, name: str = "data") -> Any:
    """The plate of all rows, of a random subsample of them, or of a minibatch that stands for ``size`` data."""
    total = count if size is None else size
    check_positive_int("size", total)
    device = None if like is None else like.device
    if total < count:
        raise ValueError(f"size: expected at least the number of rows, {count}, got {total}")
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


def check_rows(name: str, tensor: Any) -> torch.Tensor:
    """The tensor itself, refused unless it has rows."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor of shape (N, ...), got {type(tensor).__name__}")
    if tensor.dim() == 0 or len(tensor) == 0:
        raise ValueError(f"{name}: expected shape (N, ...), got {tuple(tensor.shape)}")
    return tensor


def _aligned(condition: torch.Tensor, lead: torch.Size) -> torch.Tensor:
    """One condition for each z of batch shape ``lead``, in one batch dimension."""
    if lead[-1:] != condition.shape[:1]:
        raise ValueError(
            f"condition: expected shape (N, ...) for z of batch shape {tuple(lead)}, whose last entry is N, got "
            f"{tuple(condition.shape)}"
        )
    return condition.expand(*lead, *condition.shape[1:]).reshape(-1, *condition.shape[1:])


def _unflatten(raw: Any, lead: torch.Size) -> Any:
    """A network's output, one tensor or several, for a batch of the shape ``lead``."""
    if isinstance(raw, (tuple, list)):
        return tuple(_unflatten(part, lead) for part in raw)
    if not isinstance(raw, torch.Tensor):
        raise TypeError(f"decoder: expected a network that returns tensors, got a {type(raw).__name__}")
    if raw.shape[:1] != (math.prod(lead),):
        raise ValueError(f"decoder: expected one output for each of {math.prod(lead)} z, got shape {tuple(raw.shape)}")
    return raw.reshape(*lead, *raw.shape[1:])


def _check_network(name: str, network: Any) -> torch.nn.Module:
    if not isinstance(network, torch.nn.Module):
        raise TypeError(f"{name}: expected a torch.nn.Module, got {type(network).__name__}")
    return network
