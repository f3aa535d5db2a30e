"""The potential of any autoencoder, integrated along rays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from _ppl_ebm.checks import check_positive_int
from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.networks import NetworkAutoencoder, dependence
from numpyro_ebm.distributions.validation import as_real
from numpyro_ebm.sampling.protocols import Sampler

_Network = Callable[[jax.Array], jax.Array]


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
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
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
    arg_constraints = {"temperature": constraints.positive}
    pytree_data_fields = ("origin",)
    option_names = ("num_nodes",)
    temperature: jax.Array

    def __init__(
        self,
        reconstruct: _Network,
        event_shape: tuple[int, ...],
        *,
        origin: ArrayLike | None = None,
        num_nodes: int = 16,
        temperature: ArrayLike = 1.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(reconstruct, event_shape)
        check_positive_int("num_nodes", num_nodes)
        self.num_nodes = num_nodes
        self.origin = jnp.zeros(event_shape, self.dtype) if origin is None else as_real("origin", origin)
        if self.origin.shape != event_shape:
            raise ValueError(f"origin: expected shape {event_shape}, got {self.origin.shape}")
        super().__init__(
            {"temperature": temperature},
            event_shape=event_shape,
            dtype=self.dtype,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )
        if self._validate_args:
            self._refuse_causal()

    def _refuse_causal(self) -> None:
        depends = dependence(self._network, self.event_shape, self.dtype)
        if depends is not None and depends.any() and not (np.tril(depends).any() and np.triu(depends).any()):
            raise ValueError(
                "reconstruct: LineIntegralEnergy expected a network that may have a symmetric Jacobian, got a causal "
                "one (its Jacobian is strictly triangular), whose field has no potential; use CausalAutoencoder"
            )

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "origin": self.origin}

    def parameter_arrays(self) -> list[jax.Array]:
        return [*super().parameter_arrays(), self.origin]

    def dependencies(self, value: jax.Array) -> list[jax.Array]:
        return [*super().dependencies(value), self.origin]

    def _field(self, value: jax.Array) -> jax.Array:
        return self._network(value) - value

    def _energy(self, value: jax.Array) -> jax.Array:
        nodes, weights = (jnp.asarray(part, value.dtype) for part in np.polynomial.legendre.leggauss(self.num_nodes))
        ray = value - self.origin.astype(value.dtype)
        along = lambda node: jnp.vdot(self._field(value - 0.5 * (1 - node) * ray), ray)
        return -0.5 * (weights @ jax.vmap(along)(nodes)) / self.temperature
