"""Networks as learned parameters of a NumPyro model: any callable pytree, and learned values to start from."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.primitives import Messenger

from numpyro_ebm.sampling.types import PyTree, Site

#: A flax.nnx or equinox module, a ``jax.tree_util.Partial``, or any callable pytree or function of arrays.
Network: TypeAlias = Callable[..., PyTree]
#: From names of parameter sites to values, as ``SVI.run(...).params``.
Parameters: TypeAlias = Mapping[str, PyTree]


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
    """The network with its floating-point arrays registered as the parameter site ``name``.

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
    expected, got = ({path: jnp.shape(array) for path, array in arrays.items()} for arrays in (learned, values))
    if expected != got:
        raise ValueError(f"{name}: expected arrays of the network's shapes, {expected}, got {got}")
    leaves, structure = jax.tree_util.tree_flatten_with_path(network)
    return jax.tree.unflatten(structure, [values.get(jax.tree_util.keystr(path), leaf) for path, leaf in leaves])


def learned_arrays(network: Network) -> dict[str, jax.Array | np.ndarray]:
    """The floating-point arrays of a network by their paths."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(network)
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in leaves
        if isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.floating)
    }


class StartFrom(Messenger):
    """Handler that replaces the initial values of parameter sites; values from outside, as SVI's, still win.

    :param values: from the names of parameter sites to their values.
    """

    def __init__(self, values: Parameters) -> None:
        self.values = values
        super().__init__()

    def process_message(self, msg: Site) -> None:
        if msg["type"] == "param" and msg["name"] in self.values:
            msg["fn"], msg["args"] = _first, (self.values[msg["name"]],)


def _first(value: PyTree, **options: object) -> PyTree:
    del options
    return value
