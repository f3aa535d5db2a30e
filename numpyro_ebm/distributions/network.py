"""Energies of autoencoders given by any network: integrated, gradient-step and causal ones."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

from numpyro_ebm.distributions.neural import CallableEnergy
from numpyro_ebm.distributions.parameters import as_real
from numpyro_ebm.infer.checks import check_positive_int
from numpyro_ebm.infer.samplers import Sampler

_Network = Callable[[jax.Array], jax.Array]
_NUM_PROBES = 3


class NetworkAutoencoder(CallableEnergy):
    """The family's base: a network that reconstructs, called on one value of shape ``event_shape``."""

    callable_name = "reconstruct"

    def _network(self, value: jax.Array) -> jax.Array:
        output = self._callable(value)
        if jnp.shape(output) != value.shape:
            raise ValueError(f"reconstruct: expected an output of shape {value.shape}, got {jnp.shape(output)}")
        return output

    def _cast_parameters(self) -> None:
        for name in self.parameter_dims:
            setattr(self, name, getattr(self, name).astype(self.dtype))

    def reconstruct(self, value: Any) -> jax.Array:
        """The reconstruction r(x), shape of ``value``.

        :param value: shape ``(..., *event_shape)``.
        """
        return self._map(type(self)._reconstruct, self._check_value(value))

    def field(self, value: Any) -> jax.Array:
        """``reconstruct(value) - value``."""
        value = self._check_value(value)
        return self._map(type(self)._reconstruct, value) - value

    def _reconstruct(self, value: jax.Array) -> jax.Array:
        return self._network(value)


class LineIntegralEnergy(NetworkAutoencoder):
    r"""The potential of any autoencoder, integrated along rays (Kamyshanska & Memisevic 2013).

    .. math::

        F(x) = -\frac1T \int_0^1 V(x_0 + t (x - x_0))^\top (x - x_0) \, dt, \qquad V(x) = r(x) - x

    by Gauss-Legendre quadrature. **If and only if V is a gradient field is its potential this energy**, and then
    ``field = T score``. For any other V this is still a density, whose score is not V, and nothing along the rays can
    show the difference: measure :func:`numpyro_ebm.diagnostics.asymmetry` and
    :func:`numpyro_ebm.diagnostics.circulation` first. A causal network is refused, because a strictly triangular
    Jacobian is never symmetric: see :class:`CausalAutoencoder`. Whether the density is proper is the caller's business.

    :param reconstruct: r, maps a value of shape ``event_shape``, and so batches of them, to the same shape: a plain
        function, a flax.nnx or equinox module.
    :param event_shape: shape of one value, a tuple of positive integers.
    :param origin: x_0, where the energy is zero, shape ``event_shape``; default 0.
    :param num_nodes: quadrature nodes: 8 to 16 for smooth networks, 64 or more for piecewise linear ones.
    :param temperature: T, shape ``(...,)``; for a denoising autoencoder the noise **variance**; default 1.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param sampler: ``Hamiltonian()`` (default) or ``Langevin()``.
    :raises ValueError: if the network is causal (found by three random probes, unless it is traced or
        ``validate_args=False``), and on first use if its output has another shape.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import LineIntegralEnergy
    >>> energy = LineIntegralEnergy(lambda x: jnp.tanh(2 * x), (2,))
    >>> energy.score(jnp.array([1.0, 0.0])).round(3)[0] == energy.field(jnp.array([1.0, 0.0])).round(3)[0]
    Array(True, dtype=bool)
    """

    parameter_dims = {"temperature": ()}
    parameter_defaults = {"temperature": 1.0}
    arg_constraints = {"temperature": constraints.positive}
    pytree_data_fields = ("origin",)
    pytree_aux_fields = ("num_nodes",)
    temperature: jax.Array

    def __init__(
        self,
        reconstruct: _Network,
        event_shape: tuple[int, ...],
        origin: Any = None,
        num_nodes: int = 16,
        temperature: Any = 1.0,
        *,
        log_partition: Any = "auto",
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(reconstruct, event_shape)
        check_positive_int("num_nodes", num_nodes)
        self.num_nodes = num_nodes
        self.origin = jnp.zeros(event_shape, self.dtype) if origin is None else as_real("origin", origin)
        if self.origin.shape != event_shape:
            raise ValueError(f"origin: expected shape {event_shape}, got {self.origin.shape}")
        options = {"log_partition": log_partition, "sampler": sampler, "validate_args": validate_args}
        super().__init__(temperature, event_shape=event_shape, **options)
        self._cast_parameters()
        if self._validate_args:
            self._refuse_causal()

    def _refuse_causal(self) -> None:
        depends = dependence(self._network, self.event_shape, self.dtype)
        if depends is not None and depends.any() and not (np.tril(depends).any() and np.triu(depends).any()):
            raise ValueError(
                "reconstruct: LineIntegralEnergy expected a network that may have a symmetric Jacobian, got a causal "
                "one (its Jacobian is strictly triangular), whose field has no potential; use CausalAutoencoder"
            )

    def _guarded(self, value: Any) -> Any:
        return [*super()._guarded(value), self.origin]

    def _field(self, value: jax.Array) -> jax.Array:
        return self._network(value) - value

    def _energy(self, value: jax.Array) -> jax.Array:
        nodes, weights = (jnp.asarray(part, value.dtype) for part in np.polynomial.legendre.leggauss(self.num_nodes))
        ray = value - self.origin.astype(value.dtype)
        along = lambda node: jnp.vdot(self._field(value - 0.5 * (1 - node) * ray), ray)
        return -0.5 * (weights @ jax.vmap(along)(nodes)) / self.temperature


class GradientStepEnergy(NetworkAutoencoder):
    r"""An energy from the residual of any network (Salimans & Ho 2021; Hurault, Leclaire & Papadakis 2022).

    .. math::

        F(x) = \frac{1}{2 \sigma^2} |x - f(x)|^2, \qquad r(x) = x - \sigma^2 \nabla F(x)

    Conservative by construction, whatever the network: the default for deep ones. ``reconstruct`` is the gradient step
    ``r``, not ``f``, so that ``field = sigma^2 score``. Whether the density is proper is the caller's business.

    :param reconstruct: f, maps a value of shape ``event_shape`` to the same shape.
    :param event_shape: shape of one value, a tuple of positive integers.
    :param scale: sigma, a standard deviation, shape ``(...,)``; default 1.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param sampler: ``Hamiltonian()`` (default) or ``Langevin()``.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import GradientStepEnergy
    >>> energy = GradientStepEnergy(lambda x: jnp.tanh(2 * x), (2,), scale=0.5)
    >>> print(energy.energy(jnp.array([1.0, 0.0])).round(4), energy.field(jnp.zeros(2)))
    0.0026 [0. 0.]
    """

    parameter_dims = {"scale": ()}
    parameter_defaults = {"scale": 1.0}
    arg_constraints = {"scale": constraints.positive}
    scale: jax.Array

    def __init__(
        self,
        reconstruct: _Network,
        event_shape: tuple[int, ...],
        scale: Any = 1.0,
        *,
        log_partition: Any = "auto",
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(reconstruct, event_shape)
        options = {"log_partition": log_partition, "sampler": sampler, "validate_args": validate_args}
        super().__init__(scale, event_shape=event_shape, **options)
        self._cast_parameters()

    def _energy(self, value: jax.Array) -> jax.Array:
        return 0.5 * ((value - self._network(value)) ** 2).sum() / self.scale**2

    def _score(self, value: jax.Array) -> jax.Array:
        output, pull = jax.vjp(self._network, value)
        residual = output - value
        return (residual - pull(residual)[0]) / self.scale**2

    def _reconstruct(self, value: jax.Array) -> jax.Array:
        return value + self.scale**2 * self._score(value)


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
    parameter_defaults = {"scale": 1.0}
    arg_constraints = {"scale": constraints.independent(constraints.positive, 1)}
    scale: jax.Array

    def __init__(
        self,
        reconstruct: _Network,
        event_shape: tuple[int, ...],
        scale: Any = 1.0,
        *,
        log_partition: Any = "auto",
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(reconstruct, event_shape)
        if len(event_shape) != 1:
            raise ValueError(f"event_shape: CausalAutoencoder expected one dimension, got {event_shape}")
        options = {"log_partition": log_partition, "sampler": sampler, "validate_args": validate_args}
        super().__init__(scale, event_shape=event_shape, **options)
        self._cast_parameters()
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

    def _energy(self, value: jax.Array) -> jax.Array:
        return 0.5 * (((value - self._network(value)) / self.scale) ** 2).sum()

    def _score(self, value: jax.Array) -> jax.Array:
        output, pull = jax.vjp(self._network, value)
        residual = (output - value) / self.scale**2
        return residual - pull(residual)[0]

    def _exact_log_partition(self) -> jax.Array:
        return 0.5 * self.event_shape[0] * math.log(2 * math.pi) + jnp.log(self.scale).sum()

    def _exact_sample(self, rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self._map(type(self)._decode, jax.random.normal(rng_key, shape + self.event_shape, self.dtype))

    def _ancestral_sample(self, rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
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


def dependence(network: _Network, event_shape: tuple[int, ...], dtype: Any) -> np.ndarray | None:
    """Which outputs change with which inputs, shape ``(D, D)`` by (output, input), at three random points.

    ``None`` where the network's parameters are traced and its outputs cannot be looked at.
    """
    size = math.prod(event_shape)
    rng = np.random.default_rng(0)
    found = np.zeros((size, size), bool)
    with jax.ensure_compile_time_eval():
        for point, other in rng.normal(size=(_NUM_PROBES, 2, size)):
            changed = np.where(np.eye(size, dtype=bool), other, point)
            inputs = jnp.asarray(np.concatenate([point[None], changed]), dtype)
            outputs = jax.vmap(lambda x: network(x.reshape(event_shape)).reshape(-1))(inputs)
            if not not_jax_tracer(outputs):
                return None
            array = np.asarray(outputs)
            found |= (array[1:] != array[0]).T
    return found
