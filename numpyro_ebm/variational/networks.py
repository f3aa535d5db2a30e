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
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(network)
    learned = {jax.tree_util.keystr(path): leaf for path, leaf in leaves if _is_learned(leaf)}
    if not learned:
        return network
    values: Any = numpyro.param(name, learned)  # type: ignore[arg-type]
    return jax.tree.unflatten(structure, [values.get(jax.tree_util.keystr(path), leaf) for path, leaf in leaves])


def _is_learned(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.floating)


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
