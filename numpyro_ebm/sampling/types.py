"""Names for what NumPyro and JAX leave untyped."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax

#: Any nesting of containers with arrays at its leaves.
PyTree: TypeAlias = Any
#: A JAX PRNG key, of either style.
Key: TypeAlias = jax.Array
#: A NumPyro model: any callable with ``numpyro.sample`` statements.
Model: TypeAlias = Callable[..., Any]
#: Positional and named arguments of a model.
ModelArgs: TypeAlias = tuple[Any, ...]
ModelKwargs: TypeAlias = Mapping[str, Any]
#: A sample site of a trace, or a message on its way to one.
Site: TypeAlias = dict[str, Any]
