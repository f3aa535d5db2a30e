"""Energies given by any function or network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.infer.samplers import Sampler


class CallableEnergy(EnergyDistribution):
    """An energy made of a function or network, whose arrays are leaves of the distribution."""

    pytree_data_fields = ("_leaves",)
    pytree_aux_fields = ("_structure",)
    #: The constructor's name for the function.
    callable_name = "energy_fn"

    def _store_callable(self, function: Any, event_shape: Any) -> None:
        if not callable(function):
            raise TypeError(f"{self.callable_name}: expected a callable, got {type(function).__name__}")
        if not isinstance(event_shape, tuple) or not all(isinstance(size, int) and size > 0 for size in event_shape):
            raise TypeError(f"event_shape: expected a tuple of positive integers, got {event_shape!r}")
        self._leaves, self._structure = flatten_callable(function)

    @property
    def _callable(self) -> Callable[[jax.Array], jax.Array]:
        return unflatten_callable(self._leaves, self._structure)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def dtype(self) -> Any:
        floating = [leaf.dtype for leaf in self._leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return jnp.result_type(*floating) if floating else jnp.result_type(float)

    def _guarded(self, value: Any) -> Any:
        # Besides the leaves, whatever differentiable array the function closes over.
        function = self._callable
        _, captured = jax.closure_convert(lambda v: function(v), jnp.zeros(self.event_shape, self.dtype))
        return [*captured, *super()._guarded(value)]

    def __getstate__(self) -> dict[str, Any]:
        # The definition of a pytree with custom nodes does not pickle; the callable does.
        state = {name: field for name, field in self.__dict__.items() if name not in ("_leaves", "_structure")}
        return {**state, self.callable_name: self._callable}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._leaves, self._structure = flatten_callable(state.pop(self.callable_name))
        self.__dict__.update(state)


class NeuralEnergy(CallableEnergy):
    r"""A distribution with density proportional to ``exp(-energy_fn(v))`` for any JAX function or network.

    The partition function is unknown unless one is given, so ``log_prob`` is guarded: it may be differentiated in the
    value, and differentiating it in the network's parameters, or in anything that ``energy_fn`` closes over, raises.
    Whether ``exp(-energy_fn)`` can be normalised at all is the caller's business.

    :param energy_fn: maps **one** value of shape ``event_shape`` to a scalar (a function of batches ``(..., D)`` does
        so too): a plain function, a flax.nnx or equinox module, or any callable pytree. Its arrays become data leaves
        of the distribution, the rest static structure, so it crosses ``jit``, ``vmap``, ``scan`` and pickle.
    :param event_shape: shape of one value, a tuple of positive integers.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param sampler: ``Hamiltonian()`` (default) or ``Langevin()``.
    :raises TypeError: if ``energy_fn`` is not callable or ``event_shape`` is not a tuple of positive integers.
    :raises ValueError: on first use, if ``energy_fn`` does not return a scalar.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import NeuralEnergy
    >>> ring = NeuralEnergy(lambda v: 4 * (jnp.sum(v**2) - 1) ** 2, (2,))
    >>> ring.sample(jax.random.key(0), (3,)).shape
    (3, 2)
    >>> print(ring.score(jnp.array([1.0, 1.0])))
    [-16. -16.]
    """

    def __init__(
        self,
        energy_fn: Callable[[jax.Array], jax.Array],
        event_shape: tuple[int, ...],
        *,
        log_partition: Any = "auto",
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(energy_fn, event_shape)
        super().__init__(
            event_shape=event_shape, log_partition=log_partition, sampler=sampler, validate_args=validate_args
        )

    @property
    def energy_fn(self) -> Callable[[jax.Array], jax.Array]:
        """The function or network."""
        return self._callable

    def _energy(self, value: jax.Array) -> jax.Array:
        energy = self.energy_fn(value)
        if jnp.shape(energy) != ():
            raise ValueError(
                f"energy_fn: expected a scalar for a value of shape {value.shape}, got shape {jnp.shape(energy)}"
            )
        return energy


def flatten_callable(function: Callable[..., Any]) -> tuple[tuple[Any, ...], Any]:
    """Split a callable pytree into its arrays and a hashable rest (structure and other leaves)."""
    leaves, treedef = jax.tree.flatten(function)
    is_array = tuple(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves)
    arrays = tuple(leaf for leaf, array in zip(leaves, is_array, strict=True) if array)
    static = tuple(None if array else leaf for leaf, array in zip(leaves, is_array, strict=True))
    return arrays, (treedef, is_array, static)


def unflatten_callable(arrays: tuple[Any, ...], structure: Any) -> Callable[..., Any]:
    """Inverse of :func:`flatten_callable`."""
    treedef, is_array, static = structure
    remaining = iter(arrays)
    leaves = [next(remaining) if array else leaf for array, leaf in zip(is_array, static, strict=True)]
    return jax.tree.unflatten(treedef, leaves)
