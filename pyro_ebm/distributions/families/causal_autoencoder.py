"""Autoregressive Gaussian models, written as autoencoders."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.distributions import constraints

from _ppl_ebm.errors import NOT_CAUSAL
from pyro_ebm.distributions.batching import is_concrete
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.networks import NetworkAutoencoder, dependence
from pyro_ebm.sampling.protocols import Sampler
from pyro_ebm.sampling.types import ArrayLike

_Network = Callable[[torch.Tensor], torch.Tensor]
_OTHER = 1.37  # of a size that data have


class CausalAutoencoder(NetworkAutoencoder):
    r"""An autoregressive Gaussian model, written as the autoencoder that predicts each coordinate from those before it.

    .. math::

        F(x) = \sum_i \frac{(x_i - r_i(x_{<i}))^2}{2 \sigma_i^2}, \qquad
        \log Z = \tfrac D2 \log 2 \pi + \sum_i \log \sigma_i

    The sum of the conditionals ``Normal(r_i(x_<i), sigma_i)``: exact density, and exact draws, by default in parallel:
    with frozen noise, ``x <- r(x) + sigma noise`` reaches the ancestral draw in at most D sweeps (Jacobi decoding, Song
    et al. 2021); ``sampler=Ancestral()`` draws one coordinate after the other. ``r(x) - x`` is no gradient field.

    :param reconstruct: r, maps a **batch** of values of shape ``(..., D)`` to the same shape; output i depends on
        inputs before i only. A module with dropout belongs in evaluation mode while it draws.
    :param event_shape: ``(D,)``.
    :param scale: sigma, standard deviations, shape ``(..., D)`` or a scalar; default 1.
    :param log_partition: normaliser policy; ``"auto"`` is exact.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: ``Exact()`` (default), ``Ancestral()``, ``Hamiltonian()`` or ``Langevin()``.
    :raises ValueError: if the network is not causal: when it is given (see :func:`dependence`; not with
        ``validate_args=False``); and in every ``log_prob``, at the parameters in use, by one more evaluation of each
        value with the coordinates from some on changed. Under ``torch.func`` and ``torch.jit`` that ``log_prob`` is
        NaN. On first use also if the network's output has another shape.

    >>> import torch
    >>> from pyro_ebm import CausalAutoencoder
    >>> walk = CausalAutoencoder(lambda x: torch.nn.functional.pad(x[..., :-1], (1, 0)), (3,), scale=0.5)
    >>> walk.sample((4,)).shape
    torch.Size([4, 3])
    >>> print(f"{walk.log_prob(torch.ones(3)):.4f}")
    -2.6774
    """

    parameter_dims = {"scale": ("visible",)}
    arg_constraints = {"scale": constraints.independent(constraints.positive, 1)}
    scale: torch.Tensor

    def __init__(
        self,
        reconstruct: _Network,
        event_shape: tuple[int, ...],
        *,
        scale: ArrayLike = 1.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(reconstruct, event_shape)
        if len(event_shape) != 1:
            raise ValueError(f"event_shape: CausalAutoencoder expected one dimension, got {event_shape}")
        super().__init__(
            {"scale": self._on_device("scale", scale)},
            event_shape=event_shape,
            dtype=self.dtype,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )
        if self._validate_args:
            self._check_causal()

    def _check_causal(self) -> None:
        depends = dependence(self._callable, self.event_shape, self._reference())
        if depends is not None and np.triu(depends).any():
            output, source = np.argwhere(np.triu(depends))[0]
            raise ValueError(
                "reconstruct: CausalAutoencoder expected output i to depend on inputs before i only, got output "
                f"{output} that depends on input {source}"
            )

    @property
    def has_exact_partition(self) -> bool:
        return True

    @property
    def has_exact_sampler(self) -> bool:
        return True

    @property
    def has_ancestral_sampler(self) -> bool:
        return True

    def log_prob(self, value: ArrayLike) -> torch.Tensor:
        log_prob = super().log_prob(value)
        leaks = self._leaks(self.check_value(value))
        if not is_concrete(leaks):
            return torch.where(leaks, torch.nan, log_prob)
        if leaks.any():
            raise ValueError(NOT_CAUSAL)
        return log_prob

    @torch.no_grad()
    def _leaks(self, value: torch.Tensor) -> torch.Tensor:
        """Whether outputs up to some coordinate, another one for every value, move with the inputs from there on."""
        places = torch.arange(value.shape[-1], device=value.device)
        first = (torch.floor(997 * value.abs().sum(-1, keepdim=True)) % len(places)).nan_to_num()
        other = torch.where(places >= first, _OTHER * torch.cos(places.to(value.dtype)) - value, value)
        output, moved = self._network(torch.stack([value, other]))
        size = torch.maximum(output.abs().amax(-1, keepdim=True), moved.abs().amax(-1, keepdim=True))
        is_still = (moved - output).abs() <= 100 * torch.finfo(output.dtype).eps * size
        return ((places <= first) & ~is_still).any(-1)

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        return 0.5 * (((value - self._network(value)) / self.scale) ** 2).sum(-1)

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        output, product = self._pullback(value)
        residual = (output - value) / self.scale**2
        return residual - product(residual)

    def _exact_log_partition(self) -> torch.Tensor:
        return 0.5 * self.event_shape[0] * math.log(2 * math.pi) + torch.log(self.scale).sum(-1)

    def exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self._decode(self._noise(shape))

    def ancestral_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self._decode_in_order(self._noise(shape))

    def _noise(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self.scale * torch.randn((*shape, *self.event_shape), dtype=self.dtype, device=self.device)

    def _decode(self, noise: torch.Tensor) -> torch.Tensor:
        """Sweeps ``x <- r(x) + noise`` until nothing changes, at most one for each coordinate."""
        value = self._network(torch.zeros_like(noise)) + noise
        for _ in range(noise.shape[-1] - 1):
            previous, value = value, self._network(value) + noise
            if torch.equal(value, previous):
                break
        return value

    def _decode_in_order(self, noise: torch.Tensor) -> torch.Tensor:
        """Each coordinate from those before it."""
        value = torch.zeros_like(noise)
        for i in range(noise.shape[-1]):
            drawn = self._network(value)[..., i] + noise[..., i]
            value = torch.cat([value[..., :i], drawn.unsqueeze(-1), value[..., i + 1 :]], -1)
        return value
