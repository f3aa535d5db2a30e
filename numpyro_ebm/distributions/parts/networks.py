"""Functions and networks as parts of a distribution: their arrays, and what their outputs depend on."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

from _ppl_ebm.errors import DRAWS
from _ppl_ebm.functions import count_functions
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.distributions.parts.reconstruction import Reconstruction


class CallableEnergy(EnergyDistribution):
    """An energy made of a function or network, whose arrays are leaves of the distribution."""

    pytree_data_fields = ("_leaves",)
    pytree_aux_fields = ("_structure",)
    #: The constructor's name for the function.
    callable_name = "energy_fn"

    def _store_callable(self, function: Callable[..., jax.Array], event_shape: tuple[int, ...]) -> None:
        if not callable(function):
            raise TypeError(f"{self.callable_name}: expected a callable, got {type(function).__name__}")
        if not isinstance(event_shape, tuple) or not all(isinstance(size, int) and size > 0 for size in event_shape):
            raise TypeError(f"event_shape: expected a tuple of positive integers, got {event_shape!r}")
        self._leaves, self._structure = flatten_callable(function)
        has_state = not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in self._leaves)  # keys and counters
        if has_state or not_jax_tracer(jnp.zeros(())):
            check_repeatable(self.callable_name, self._callable, event_shape, self.dtype)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        # On the way into a compiled function, of which the function is a part.
        count_functions(self.callable_name, static_functions(self._structure), stacklevel=2)
        return super().tree_flatten()

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

    def arguments(self) -> dict[str, Any]:
        return {self.callable_name: self._callable, "event_shape": self.event_shape, **super().arguments()}

    def parameter_arrays(self) -> list[jax.Array]:
        return [*self._leaves, *super().parameter_arrays()]

    def dependencies(self, value: jax.Array) -> list[jax.Array]:
        del value
        # Besides the leaves, whatever differentiable array the function closes over.
        function = self._callable
        _, captured = jax.closure_convert(lambda v: function(v), jnp.zeros(self.event_shape, self.dtype))
        return [*captured, *super().parameter_arrays()]

    def __getstate__(self) -> dict[str, Any]:
        # The definition of a pytree with custom nodes does not pickle; the callable does.
        state = {name: field for name, field in self.__dict__.items() if name not in ("_leaves", "_structure")}
        return {**state, self.callable_name: self._callable}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._leaves, self._structure = flatten_callable(state.pop(self.callable_name))
        self.__dict__.update(state)


def check_repeatable(name: str, network: Callable[..., Any], event_shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse a network of which another call gives another output; not where its outputs are traced.

    :param name: the argument.
    :param network: a copy, whose states may change.
    :raises ValueError: for dropout and other random layers.
    """
    with jax.ensure_compile_time_eval():
        value = jnp.asarray(np.random.default_rng(0).normal(size=event_shape), dtype)
        once, again = network(value), network(value)
    if not (not_jax_tracer(once) and not_jax_tracer(again)) or jnp.shape(once) != jnp.shape(again):
        return
    tolerance = float(jnp.finfo(dtype).eps) ** 0.5
    size = np.abs(np.nan_to_num(once)).max(initial=0.0)
    if not np.allclose(once, again, rtol=tolerance, atol=tolerance * size, equal_nan=True):
        raise ValueError(f"{name}: {DRAWS}; give it without, by network.eval() or deterministic=True")


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


def static_functions(structure: Any) -> list[Any]:
    """What a compiled program goes by among the hashable rest: functions, also of a ``jax.tree_util.Partial``."""
    treedef, _, static = structure
    node = treedef.node_data()
    return [*static, *([node[1]] if node is not None and node[0] is Partial else [])]


_Network = Callable[[jax.Array], jax.Array]
_NUM_PROBES = 3


class NetworkAutoencoder(Reconstruction, CallableEnergy):
    """The family's base: a network that reconstructs, called on one value of shape ``event_shape``."""

    callable_name = "reconstruct"

    def _network(self, value: jax.Array) -> jax.Array:
        output = self._callable(value)
        if jnp.shape(output) != value.shape:
            raise ValueError(f"reconstruct: expected an output of shape {value.shape}, got {jnp.shape(output)}")
        return output

    def _reconstruct(self, value: jax.Array) -> jax.Array:
        return self._network(value)


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
