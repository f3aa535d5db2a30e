"""Distributions that are made of named parameters, whose batch dimensions broadcast."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pyro.distributions import TorchDistribution

from _ppl_ebm.properness import single_models
from _ppl_ebm.shapes import check_shape
from pyro_ebm.distributions.batching import as_real_tensors
from pyro_ebm.distributions.capabilities import Capabilities


class Parametrised(Capabilities, TorchDistribution):
    """A host distribution that keeps its parameters under their names, copies cheaply, and knows its models one by one.

    What the parameters mean, and their checks, are :class:`pyro_ebm.distributions.energy.EnergyDistribution`'s.
    """

    #: Core dimensions of each parameter by name, for example ``{"weights": ("visible", "hidden")}``.
    parameter_dims: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: Scalar values of parameters that play no part in any formula unless they are given.
    optional_parameters: ClassVar[Mapping[str, float]] = {}
    #: Arguments of the constructor beside the parameters, which are not tensors and are kept under their names.
    option_names: ClassVar[tuple[str, ...]] = ()
    #: The optional parameters that were not given.
    absent: frozenset[str]

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters, and so of energies and samples."""
        return getattr(self, next(iter(self.parameter_dims))).dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters, and so of energies and samples."""
        return getattr(self, next(iter(self.parameter_dims))).device

    def parameters(self) -> dict[str, torch.Tensor]:
        """All parameters by name, those that were not given included."""
        return {name: getattr(self, name) for name in self.parameter_dims}

    def parameter_arrays(self) -> list[torch.Tensor]:
        """All tensors that the energy is made of."""
        return list(self.parameters().values())

    def unexpanded(self) -> Self:
        """The same density over no larger a batch than the parameters have."""
        shapes = [
            tensor.shape[: tensor.dim() - len(self.parameter_dims[name])] for name, tensor in self.parameters().items()
        ]
        model = copy.copy(self)
        model._batch_shape = torch.broadcast_shapes(*shapes)
        return model

    def frozen(self) -> Self:
        """A copy for Markov chains: detached parameters, and no checks on where the chains go."""
        frozen = copy.copy(self)
        frozen._validate_args = False
        for name, tensor in self.parameters().items():
            setattr(frozen, name, tensor.detach())
        return frozen

    # ------------------------------------------------------------------ how it works

    def __copy__(self) -> Self:
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def _single_models(self, names: Sequence[str]) -> Iterator[list[np.ndarray]]:
        """The parameters of these names for each model of the batch, as NumPy arrays in double precision."""
        arrays = [getattr(self, name).detach().cpu().double().numpy() for name in names]
        return single_models(arrays, [len(self.parameter_dims[name]) for name in names])

    @property
    def _num_models(self) -> int:
        """How many models the batch has."""
        return math.prod(int(size) for size in self.batch_shape)

    def _in_single_precision(self) -> Self:
        """The same density with parameters of 32 bits, if they have fewer: too few for sums of many terms."""
        if self.dtype.itemsize >= torch.float32.itemsize:
            return self
        wide = copy.copy(self)
        for name, tensor in self.parameters().items():
            setattr(wide, name, tensor.float())
        return wide

    def _store_parameters(
        self, parameters: Mapping[str, Any], sizes: dict[str, int], dtype: torch.dtype | None = None
    ) -> torch.Size:
        """Store all parameters, bind the ``sizes`` of their dimensions and return their joint batch shape."""
        self.absent = frozenset(name for name in self.optional_parameters if parameters[name] is None)
        given = {name: value for name, value in parameters.items() if name not in self.absent}
        tensors, joint, device = as_real_tensors(given)
        dtype = joint if dtype is None else dtype
        batch_shape: tuple[int, ...] = ()
        for name, dims in self.parameter_dims.items():
            if name in tensors:
                tensor = tensors[name].to(dtype)
            else:
                tensor = torch.as_tensor(self._absent_parameter(name, sizes), dtype=dtype, device=device)
            if tensor.dim() == 0 and all(dim in sizes for dim in dims):
                tensor = tensor.expand([sizes[dim] for dim in dims])
            batch_shape = check_shape(name, tensor.shape, dims, sizes, batch_shape)
            setattr(self, name, tensor)
        return torch.Size(batch_shape)

    def _absent_parameter(self, name: str, sizes: Mapping[str, int]) -> float | torch.Tensor:
        """The value of an optional parameter that was not given; ``sizes`` are those of the parameters before it."""
        del sizes
        return self.optional_parameters[name]
