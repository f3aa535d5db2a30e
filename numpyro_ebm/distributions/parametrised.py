"""Distributions that are made of named parameters, whose batch dimensions broadcast."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution
from numpyro.util import not_jax_tracer

from _ppl_ebm.properness import single_models
from _ppl_ebm.shapes import check_shape
from numpyro_ebm.distributions.batching import broadcasting_vmap
from numpyro_ebm.distributions.capabilities import Capabilities
from numpyro_ebm.distributions.validation import as_real
from numpyro_ebm.sampling.types import PyTree


class Parametrised(Capabilities, Distribution):
    """A host distribution that keeps its parameters under their names, copies cheaply, and knows its models one by one.

    What the parameters mean, and their checks, are :class:`numpyro_ebm.distributions.energy.EnergyDistribution`'s.
    """

    #: Core dimensions of each parameter by name, for example ``{"weights": ("visible", "hidden")}``.
    parameter_dims: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: Scalar values of parameters that play no part in any formula unless they are given.
    optional_parameters: ClassVar[Mapping[str, float]] = {}
    #: Arguments of the constructor beside the parameters, which are not arrays and are kept under their names.
    option_names: ClassVar[tuple[str, ...]] = ()
    #: The optional parameters that were not given.
    absent: frozenset[str]
    #: Of how many models a method that is mapped over the batch has one.
    _num_models = 1

    @property
    def dtype(self) -> Any:
        """Floating-point type of the parameters, and so of energies and samples."""
        return jnp.result_type(*(getattr(self, name) for name in self.parameter_dims))

    def parameters(self) -> dict[str, jax.Array]:
        """All parameters by name, those that were not given included."""
        return {name: getattr(self, name) for name in self.parameter_dims}

    def parameter_arrays(self) -> list[jax.Array]:
        """All arrays that the energy is made of."""
        return list(self.parameters().values())

    def unexpanded(self) -> Self:
        """The same density over no larger a batch than the parameters have."""
        shapes = [
            array.shape[: array.ndim - len(self.parameter_dims[name])] for name, array in self.parameters().items()
        ]
        model = copy.copy(self)
        model._batch_shape = jnp.broadcast_shapes(*shapes)
        return model

    # ------------------------------------------------------------------ how it works

    def __copy__(self) -> Self:
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def _in_single_precision(self) -> Self:
        """The same density with parameters of 32 bits, if they have fewer: too few for sums of many terms."""
        if self.dtype.itemsize >= jnp.dtype(jnp.float32).itemsize:
            return self
        wide = copy.copy(self)
        for name, array in self.parameters().items():
            setattr(wide, name, array.astype(jnp.float32))
        return wide

    @classmethod
    def gather_pytree_data_fields(cls) -> tuple[str, ...]:
        # NumPyro would add the parameters of base classes, and order the fields by their hashes, which differ from
        # process to process and so would defeat JAX's persistent compilation cache.
        declared = (field for base in cls.__mro__ for field in vars(base).get("pytree_data_fields", ()))
        return tuple(sorted({*cls.parameter_dims, *declared}))

    @classmethod
    def gather_pytree_aux_fields(cls) -> tuple[str, ...]:
        return tuple(sorted((*super().gather_pytree_aux_fields(), *cls.option_names)))

    def _single_models(self, names: Sequence[str]) -> Iterator[list[np.ndarray]]:
        """The parameters of these names for each model of the batch, as NumPy arrays in double precision."""
        arrays = [np.asarray(getattr(self, name), float) for name in names]
        return single_models(arrays, [len(self.parameter_dims[name]) for name in names])

    def _store_parameters(
        self, parameters: Mapping[str, Any], sizes: dict[str, int], dtype: Any = None
    ) -> tuple[int, ...]:
        """Store all parameters, bind the ``sizes`` of their dimensions and return their joint batch shape."""
        self.absent = frozenset(name for name in self.optional_parameters if parameters[name] is None)
        given = {name: value for name, value in parameters.items() if name not in self.absent}
        batch_shape: tuple[int, ...] = ()
        with _where_the_values_are(given.values()):
            arrays = {name: as_real(name, value) for name, value in given.items()}
            if dtype is None:
                dtype = jnp.result_type(*arrays.values()) if arrays else jnp.result_type(float)
            for name, dims in self.parameter_dims.items():
                array = arrays[name] if name in arrays else self._absent_parameter(name, sizes)
                if array.ndim == 0 and all(dim in sizes for dim in dims):
                    array = jnp.broadcast_to(array, tuple(sizes[dim] for dim in dims))
                batch_shape = check_shape(name, array.shape, dims, sizes, batch_shape)
                setattr(self, name, array.astype(dtype))
        return batch_shape

    def _absent_parameter(self, name: str, sizes: Mapping[str, int]) -> jax.Array:
        """The value of an optional parameter that was not given; ``sizes`` are those of the parameters before it."""
        del sizes
        return jnp.asarray(self.optional_parameters[name])

    def _map(self, method: Callable[..., PyTree], *values: jax.Array, using: tuple[str, ...] | None = None) -> PyTree:
        """Apply a single-value method over all batch dimensions of the parameters and of ``values``.

        :param using: the parameters that ``method`` uses, if not all: the others' batch dimensions then play no part.
        """
        names = tuple(self.parameter_dims) if using is None else using

        def single(*arrays: jax.Array) -> PyTree:
            model = copy.copy(self)
            model._batch_shape, model._num_models = (), self._num_models * math.prod(self.batch_shape)
            for name, array in zip(names, arrays, strict=False):
                setattr(model, name, array)
            return method(model, *arrays[len(names) :])

        parameters = [getattr(self, name) for name in names]
        core = [len(self.parameter_dims[name]) for name in names] + [self.event_dim] * len(values)
        return broadcasting_vmap(single, core, *parameters, *values)

    def _over_batch(self, array: jax.Array, core_ndim: int) -> jax.Array:
        """Broadcast the leading dimensions of ``array`` over ``batch_shape``, which ``expand`` may have enlarged."""
        lead, core = array.shape[: array.ndim - core_ndim], array.shape[array.ndim - core_ndim :]
        return jnp.broadcast_to(array, jnp.broadcast_shapes(lead, self.batch_shape) + core)


def _where_the_values_are(values: Iterable[Any]) -> contextlib.AbstractContextManager[None]:
    """Conversions of constants are done at once, also under ``jit``, so that they stay constants."""
    concrete = all(not_jax_tracer(value) for value in jax.tree.leaves(list(values)))
    return jax.ensure_compile_time_eval() if concrete else contextlib.nullcontext()
