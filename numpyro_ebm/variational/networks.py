"""Networks as learned parameters of a NumPyro model: any callable pytree, and learned values to start from.

Of flax.nnx modules only ``nnx.Param`` is learned. All else, as the running statistics of ``BatchNorm`` and the keys of
``Dropout``, is the module's state: a mutable site, as that of NumPyro's own ``nnx_module``.
"""

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from numpyro.primitives import Messenger, mutable

from _ppl_ebm.autoencoders import one_row_to_normalise
from numpyro_ebm.sampling.types import PyTree, Site

#: A flax.nnx or equinox module, a ``jax.tree_util.Partial``, or any callable pytree or function of arrays.
Network: TypeAlias = Callable[..., PyTree]
#: From names of parameter sites to values, as ``SVI.run(...).params``.
Parameters: TypeAlias = Mapping[str, PyTree]
#: Arrays inside a network by their paths.
Arrays: TypeAlias = dict[str, jax.Array | np.ndarray]


def check_network(name: str, network: Network) -> Network:
    """The network itself, refused unless it is callable."""
    if not callable(network):
        raise TypeError(f"{name}: expected a callable network, got {type(network).__name__}")
    return network


def describe(network: Network) -> str:
    """A network's kind and how many numbers it learns.

    >>> import jax, jax.numpy as jnp
    >>> describe(jax.tree_util.Partial(jnp.dot, jnp.ones((3, 2)))), describe(lambda x: x)
    ('Partial of 6 numbers', 'function')
    """
    count = sum(array.size for array in learned_arrays(network).values())
    return f"{type(network).__name__} of {count:,} numbers" if count else type(network).__name__


def register_network(name: str, network: Network) -> Network:
    """The network with its learned arrays registered as the parameter site ``name``.

    The site's value is a dictionary from the path of an array inside the network to the array. A callable without such
    arrays, as a plain function, registers nothing: it may call ``numpyro.param`` itself, but not under ``vmap``.

    :param name: name of the parameter site.
    :param network: what is registered.
    :raises ValueError: if the site's value has other arrays or shapes than the network, as another's parameters.
    """
    learned = learned_arrays(network)
    if not learned:
        return network
    values = numpyro.param(name, learned)
    _check_arrays(name, learned, values)
    return _replaced(network, values)


def apply_network(name: str, network: Network, *rows: jax.Array) -> PyTree:
    """What a network returns for each row; its learned arrays are the parameter site ``name``.

    The state of flax.nnx modules is the mutable site ``<name>.state``, whose value holds a dictionary from paths to
    arrays under ``"state"``. In training mode ``BatchNorm`` normalises over all rows, as if it were called on them
    together, ``Dropout`` draws anew for each row, and other running averages are averaged over the rows.

    :param name: name of the parameter site.
    :param network: called on one row of each array.
    :param rows: arrays of as many rows.
    :raises ValueError: as :func:`register_network`, and for a single row to normalise by itself.
    """
    network = register_network(name, network)
    state = state_arrays(network)
    if not state or not (has_statistics(network) or _moves(network, state, rows)):
        return jax.vmap(lambda *one: network(*one))(*rows)
    holder = mutable(state_name(name), {"state": state})
    _check_arrays(state_name(name), state, holder["state"])
    output, moved = _apply(name, network, holder["state"], rows)
    holder["state"] = lax.stop_gradient(moved)
    return output


def state_name(name: str) -> str:
    """The name of the mutable site of a network's state.

    :param name: name of its parameter site.
    """
    return f"{name}.state"


def _apply(name: str, network: Network, state: Arrays, rows: tuple[jax.Array, ...]) -> tuple[PyTree, Arrays]:
    """A network's outputs and its state afterwards."""

    wide = {path: _as_wide(array, rows[0]) for path, array in state.items()}

    def one(*row: jax.Array) -> tuple[PyTree, Arrays]:
        moving = _replaced(network, wide)
        norms, keys = _over_rows(moving)
        before = [norm.mean.get_value() for norm in norms]
        output = moving(*row)
        moved = any(norm.mean.get_value() is not mean for norm, mean in zip(norms, before, strict=True))
        if moved and len(rows[0]) == 1 and row[0].ndim < 2:
            raise one_row_to_normalise(name, "BatchNorm")
        for variable, key in keys:
            variable.set_value(key)
        moved_arrays = state_arrays(moving)
        return output, {path: _shared(moved_arrays[path], wide[path], array.dtype) for path, array in state.items()}

    outputs: tuple[PyTree, Arrays] = jax.vmap(one, out_axes=(0, None), axis_name=_ROWS)(*rows)
    return outputs


_ROWS = "rows of a network"


def _over_rows(network: Network) -> tuple[list[Any], list[tuple[Any, jax.Array]]]:
    """Make layers see that they are called on one row of many: those that normalise, and keys with their old values."""
    nnx = _nnx()
    if nnx is None:
        return [], []
    nodes = [node for module in _modules(network) for _, node in nnx.iter_graph(module)]
    norms = [node for node in nodes if isinstance(node, nnx.BatchNorm)]
    for norm in norms:
        norm.axis_name = _ROWS if norm.axis_name is None else norm.axis_name
    keys = [(node, node.get_value()) for node in nodes if isinstance(node, nnx.RngKey)]
    for variable, key in keys:
        variable.set_value(jax.random.fold_in(key, lax.axis_index(_ROWS)))
    return norms, keys


def _as_wide(array: jax.Array | np.ndarray, rows: jax.Array) -> jax.Array | np.ndarray:
    """Statistics in the precision of data: flax keeps them in single precision, and warns of others."""
    is_narrow = jnp.issubdtype(array.dtype, jnp.floating) and jnp.issubdtype(rows.dtype, jnp.floating)
    return jnp.asarray(array, jnp.promote_types(array.dtype, rows.dtype)) if is_narrow else array


def _shared(array: jax.Array | np.ndarray, before: jax.Array | np.ndarray, dtype: jnp.dtype) -> jax.Array | np.ndarray:
    """A state of all rows, in its own type: floating-point ones are means of what the rows made of them."""
    if not jnp.issubdtype(dtype, jnp.floating):
        return array
    return (array if array is before else lax.pmean(array, _ROWS)).astype(dtype)


def _moves(network: Network, state: Arrays, rows: tuple[jax.Array, ...]) -> bool:
    """Whether a call changes the state."""
    moved: list[str] = []

    def one(*row: jax.Array) -> None:
        moving = _replaced(network, state)
        _over_rows(moving)
        before = state_arrays(moving)
        moving(*row)
        moved.extend(path for path, array in state_arrays(moving).items() if array is not before[path])

    jax.eval_shape(jax.vmap(one, axis_name=_ROWS), *rows)
    return bool(moved)


def in_evaluation(network: Network) -> Network:
    """A copy whose flax.nnx modules are as after ``.eval()``: running statistics, no dropout; other callables stay."""
    modules = _modules(network)
    if not modules:
        return network
    copied = _replaced(network, {})
    for module in _modules(copied):
        module.eval()
    return copied


def learned_arrays(network: Network) -> Arrays:
    """The floating-point arrays of a network by their paths, those in ``nnx.Param`` alone of flax.nnx modules."""
    state = _state_paths(network)
    return {
        path: array
        for path, array in _arrays(network).items()
        if path not in state and jnp.issubdtype(array.dtype, jnp.floating)
    }


def state_arrays(network: Network) -> Arrays:
    """The arrays of flax.nnx modules inside a network that are in no ``nnx.Param``, by their paths."""
    state = _state_paths(network)
    return {path: array for path, array in _arrays(network).items() if path in state}


def has_statistics(network: Network) -> bool:
    """Whether its state has floating-point numbers, as running statistics."""
    return any(jnp.issubdtype(array.dtype, jnp.floating) for array in state_arrays(network).values())


def _arrays(network: Network) -> Arrays:
    leaves, _ = jax.tree_util.tree_flatten_with_path(network)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if isinstance(leaf, (jax.Array, np.ndarray))}


def _state_paths(network: Network) -> set[str]:
    """Paths of what is inside a flax.nnx module and in no ``nnx.Param``."""
    nnx = _nnx()
    if nnx is None:
        return set()
    inside = [path for path, node in _nodes(network, nnx.Module) if isinstance(node, nnx.Module)]
    learned = [path for path, node in _nodes(network, nnx.Param) if isinstance(node, nnx.Param)]
    return {
        path
        for path in _arrays(network)
        if any(path.startswith(start) for start in inside) and not any(path.startswith(start) for start in learned)
    }


def _nodes(network: Network, kind: type) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(network, is_leaf=lambda node: isinstance(node, kind))
    return [(jax.tree_util.keystr(path), node) for path, node in leaves]


def _modules(network: Network) -> list[Any]:
    """The outermost flax.nnx modules."""
    nnx = _nnx()
    return [] if nnx is None else [node for _, node in _nodes(network, nnx.Module) if isinstance(node, nnx.Module)]


def _nnx() -> ModuleType | None:
    """flax.nnx, if the program has imported it; else there is no module of it."""
    return sys.modules.get("flax.nnx")


def _replaced(network: Network, values: Mapping[str, jax.Array | np.ndarray]) -> Network:
    """A copy with other arrays at some paths."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(network)
    return jax.tree.unflatten(structure, [values.get(jax.tree_util.keystr(path), leaf) for path, leaf in leaves])


def _check_arrays(name: str, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    expected, got = ({path: jnp.shape(array) for path, array in each.items()} for each in (arrays, values))
    if expected != got:
        raise ValueError(f"{name}: expected arrays of the network's shapes, {expected}, got {got}")


class StartFrom(Messenger):
    """Handler that replaces the initial values of parameter and mutable sites; those from outside, as SVI's, still win.

    :param values: from the names of sites to their values.
    """

    def __init__(self, values: Parameters) -> None:
        self.values = values
        super().__init__()

    def process_message(self, msg: Site) -> None:
        if msg["type"] == "param" and msg["name"] in self.values:
            msg["fn"], msg["args"] = _first, (self.values[msg["name"]],)
        if msg["type"] == "mutable" and msg["name"] in self.values:
            msg["value"] = dict(self.values[msg["name"]])


def _first(value: PyTree, **options: object) -> PyTree:
    del options
    return value
