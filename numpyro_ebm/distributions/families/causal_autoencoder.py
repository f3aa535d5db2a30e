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

from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.networks import NetworkAutoencoder, dependence
from numpyro_ebm.sampling.protocols import Sampler
from numpyro_ebm.sampling.types import Key

_Network = Callable[[jax.Array], jax.Array]


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
    :raises ValueError: if the network is not causal (found by three random probes, unless it is traced or
        ``validate_args=False``), and on first use if its output has another shape.

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
