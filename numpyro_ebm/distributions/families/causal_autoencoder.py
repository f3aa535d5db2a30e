"""Autoregressive Gaussian models, written as autoencoders."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

from _ppl_ebm.errors import NOT_CAUSAL
from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.networks import NetworkAutoencoder, dependence
from numpyro_ebm.sampling.protocols import Sampler
from numpyro_ebm.sampling.types import Key, PyTree

_Network = Callable[[jax.Array], jax.Array]
_OTHER = 1.37  # of a size that data have


class CausalAutoencoder(NetworkAutoencoder):
    r"""An autoregressive Gaussian model, written as the autoencoder that predicts each coordinate from those before it.

    .. math::

        F(x) = \sum_i \frac{(x_i - r_i(x_{<i}))^2}{2 \sigma_i^2}, \qquad
        \log Z = \tfrac D2 \log 2 \pi + \sum_i \log \sigma_i

    The sum of the conditionals ``Normal(r_i(x_<i), sigma_i)``: exact density, and exact draws, by default in parallel:
    with frozen noise, ``x <- r(x) + sigma noise`` reaches the ancestral draw in at most D sweeps (Jacobi decoding, Song
    et al. 2021); ``sampler=Ancestral()`` draws one coordinate after the other. ``r(x) - x`` is no gradient field.

    :param reconstruct: r, maps a value of shape ``(D,)`` to the same shape; output i depends on inputs before i only.
    :param event_shape: ``(D,)``.
    :param scale: sigma, standard deviations, shape ``(..., D)`` or a scalar; default 1.
    :param log_partition: normaliser policy; ``"auto"`` is exact.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: ``Exact()`` (default), ``Ancestral()``, ``Hamiltonian()`` or ``Langevin()``.
    :raises ValueError: if the network is not causal: when it is given, by three random probes (unless it is traced or
        ``validate_args=False``); and in every ``log_prob``, at the parameters in use, by one more evaluation of each
        value with the coordinates from some on changed. Where traced, that ``log_prob`` is NaN. On first use also if
        the network's output has another shape.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import CausalAutoencoder
    >>> walk = CausalAutoencoder(lambda x: jnp.pad(x[:-1], (1, 0)), (3,), scale=0.5)
    >>> walk.sample(jax.random.key(0), (4,)).shape
    (4, 3)
    >>> print(f"{walk.log_prob(jnp.ones(3)):.4f}")
    -2.6774
    """

    parameter_dims = {"scale": ("visible",)}
    arg_constraints = {"scale": constraints.independent(constraints.positive, 1)}
    scale: jax.Array

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
            {"scale": scale},
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
        depends = dependence(self._network, self.event_shape, self.dtype)
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

    def log_prob(self, value: ArrayLike, intermediates: PyTree = None) -> jax.Array:
        log_prob = super().log_prob(value, intermediates)
        leaks = lax.stop_gradient(self._map(type(self)._leaks, self.check_value(value)))
        if not not_jax_tracer(leaks):
            return jnp.where(leaks, jnp.nan, log_prob)
        if leaks.any():
            raise ValueError(NOT_CAUSAL)
        return log_prob

    def _leaks(self, value: jax.Array) -> jax.Array:
        """Whether outputs up to some coordinate, another one for every value, move with the inputs from there on."""
        size = len(value)
        first = jnp.nan_to_num(jnp.floor(997 * jnp.abs(value).sum()) % size).astype(int)
        places = jnp.arange(size)
        output = self._network(value)
        moved = self._network(jnp.where(places >= first, _OTHER * jnp.cos(places) - value, value))
        tolerance = 100 * jnp.finfo(output.dtype).eps * jnp.maximum(jnp.abs(output).max(), jnp.abs(moved).max())
        return jnp.any((places <= first) & ~(jnp.abs(moved - output) <= tolerance))

    def _energy(self, value: jax.Array) -> jax.Array:
        return 0.5 * (((value - self._network(value)) / self.scale) ** 2).sum()

    def _score(self, value: jax.Array) -> jax.Array:
        output, pull = jax.vjp(self._network, value)
        residual = (output - value) / self.scale**2
        return residual - pull(residual)[0]

    def _exact_log_partition(self) -> jax.Array:
        return 0.5 * self.event_shape[0] * math.log(2 * math.pi) + jnp.log(self.scale).sum()

    def exact_sample(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        return self._map(type(self)._decode, jax.random.normal(rng_key, shape + self.event_shape, self.dtype))

    def ancestral_sample(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        noise = jax.random.normal(rng_key, shape + self.event_shape, self.dtype)
        return self._map(type(self)._decode_in_order, noise)

    def _decode(self, noise: jax.Array) -> jax.Array:
        """Sweeps ``x <- r(x) + sigma noise`` until nothing changes, at most one for each coordinate."""

        def sweep(carry: Any) -> Any:
            value, _, count = carry
            return self._network(value) + self.scale * noise, value, count + 1

        def goes_on(carry: Any) -> jax.Array:
            value, previous, count = carry
            return (count < len(noise)) & jnp.any(value != previous)

        first = self._network(jnp.zeros_like(noise)) + self.scale * noise
        return lax.while_loop(goes_on, sweep, (first, jnp.full_like(noise, jnp.inf), 1))[0]

    def _decode_in_order(self, noise: jax.Array) -> jax.Array:
        """Each coordinate from those before it."""
        fill = lambda i, value: value.at[i].set(self._network(value)[i] + self.scale[i] * noise[i])
        return lax.fori_loop(0, len(noise), fill, jnp.zeros_like(noise))
