"""Names for what Pyro and torch leave untyped."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy.typing as npt
import torch

#: What parameters and values are given as.
ArrayLike: TypeAlias = torch.Tensor | npt.ArrayLike
#: Any nesting of containers with tensors at its leaves.
PyTree: TypeAlias = Any
#: A Pyro model: any callable with ``pyro.sample`` statements.
Model: TypeAlias = Callable[..., Any]
#: Positional and named arguments of a model.
ModelArgs: TypeAlias = tuple[Any, ...]
ModelKwargs: TypeAlias = Mapping[str, Any]
#: A sample site of a trace, or a message on its way to one.
Site: TypeAlias = dict[str, Any]
