"""Networks as learned parameters of a NumPyro model: any callable pytree, and learned values to start from."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.primitives import Messenger


def register_network(name: str, network: Callable[..., Any]) -> Callable[..., Any]:
    """The network with its floating-point arrays registered as the parameter site ``name``.

    The site's value is a dictionary from the path of an array inside the network to the array. A callable without such
    arrays, as a plain function, registers nothing: it may call ``numpyro.param`` itself, but not under ``vmap``.

    :param name: name of the parameter site.
    :param network: a flax.nnx or equinox module, a ``jax.tree_util.Partial``, or any callable pytree or function.
    :raises ValueError: if the site's value has other arrays or shapes than the network, as another's parameters.
    """
    learned = learned_arrays(network)
    if not learned:
        return network
    values: Any = numpyro.param(name, learned)  # type: ignore[arg-type]
    expected, got = ({path: jnp.shape(array) for path, array in arrays.items()} for arrays in (learned, values))
    if expected != got:
        raise ValueError(f"{name}: expected arrays of the network's shapes, {expected}, got {got}")
    leaves, structure = jax.tree_util.tree_flatten_with_path(network)
    return jax.tree.unflatten(structure, [values.get(jax.tree_util.keystr(path), leaf) for path, leaf in leaves])


def learned_arrays(network: Any) -> dict[str, Any]:
    """The floating-point arrays of a network by their paths."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(network)
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in leaves
        if isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.floating)
    }


def check_network(name: str, network: Any) -> Any:
    """The network itself, refused if it is not callable."""
    if not callable(network):
        raise TypeError(f"{name}: expected a callable network, got {type(network).__name__}")
    return network


class StartFrom(Messenger):
    """Handler that replaces the initial values of parameter sites; values from outside, as SVI's, still win.

    :param values: from the names of parameter sites to their values, as ``SVI.run(...).params``.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        super().__init__()

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "param" and msg["name"] in self.values:
            msg["fn"], msg["args"] = _first, (self.values[msg["name"]],)


def _first(value: Any, **options: Any) -> Any:
    del options
    return value
