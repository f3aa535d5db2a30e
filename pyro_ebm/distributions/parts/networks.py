"""Functions and networks as parts of a distribution: their arrays, and what their outputs depend on."""

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from pyro.nn import PyroModule, PyroSample
from torch.autograd import forward_ad
from torch.distributions import constraints

from _ppl_ebm.errors import DRAWS, MIXES
from pyro_ebm.distributions.batching import as_tensor, in_function_transform, is_concrete, pullback
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.parts.reconstruction import Reconstruction
from pyro_ebm.sampling.types import ArrayLike

_Network = Callable[[torch.Tensor], torch.Tensor]
#: Networks whose outputs were found to be functions of their inputs, with the modes of their modules.
_REPEATABLE: weakref.WeakKeyDictionary[Any, tuple[bool, ...]] = weakref.WeakKeyDictionary()


class CallableEnergy(EnergyDistribution):
    """An energy made of a function or network, whose type and device it takes.

    A member defines ``_evaluate``, the function's output with its shape checked.
    """

    #: The constructor's name for the function.
    callable_name = "energy_fn"

    def _store_callable(self, function: Callable[..., torch.Tensor], event_shape: tuple[int, ...]) -> None:
        if not callable(function):
            raise TypeError(f"{self.callable_name}: expected a callable, got {type(function).__name__}")
        if not isinstance(event_shape, tuple) or not all(isinstance(size, int) and size > 0 for size in event_shape):
            raise TypeError(f"event_shape: expected a tuple of positive integers, got {event_shape!r}")
        for module in _modules(function):
            _check_weights_stay(self.callable_name, module)
        self._callable = function

    def _evaluate(self, value: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _validate_parameters(self) -> None:
        super()._validate_parameters()
        check_repeatable(self.callable_name, self._callable, self.event_shape, self._reference())

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def dtype(self) -> torch.dtype:
        return self._reference().dtype

    @property
    def device(self) -> torch.device:
        return self._reference().device

    @property
    def _value_device(self) -> torch.device | None:
        return self.device if any(True for _ in _tensors(self._callable)) else None

    def _reference(self) -> torch.Tensor:
        """A tensor of the network's type and device."""
        return next((tensor for tensor in _tensors(self._callable) if tensor.is_floating_point()), torch.empty(0))

    def arguments(self) -> dict[str, Any]:
        return {self.callable_name: self._callable, "event_shape": self.event_shape, **super().arguments()}

    def parameter_arrays(self) -> list[torch.Tensor]:
        return [*_tensors(self._callable), *super().parameter_arrays()]

    def dependencies(self, value: torch.Tensor) -> list[torch.Tensor]:
        # Only what the output depends on beside the value can give this a gradient: parameters and captured tensors.
        beside_value = [self._evaluate(value.detach())] if torch.is_grad_enabled() or _in_forward_mode() else []
        return beside_value + super().parameter_arrays()


def check_repeatable(name: str, network: _Network, event_shape: tuple[int, ...], like: torch.Tensor) -> None:
    """Refuse a network of which another call, or another batch around a value, gives another output.

    :param name: the argument.
    :param like: a tensor of the network's type and device.
    :raises ValueError: for dropout and other random layers, and batch normalisation in training mode.
    """
    modules = list(_modules(network))
    modes = tuple(module.training for module in modules)
    if torch.jit.is_tracing() or in_function_transform() or (modules and _REPEATABLE.get(network) == modes):
        return
    inputs = torch.as_tensor(np.random.default_rng(0).normal(size=(3, *event_shape))).to(like)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _kept_buffers(modules):
        outputs = [network(inputs), network(inputs), network(inputs[:2])]
    if not all(isinstance(output, torch.Tensor) and output.dim() for output in outputs):
        return  # which is an error on first use
    once, again, fewer = outputs
    if once.shape == again.shape and not _is_close(once, again):
        raise ValueError(f"{name}: {DRAWS}; put its modules in evaluation mode, network.eval()")
    if once[:2].shape == fewer.shape and not _is_close(once[:2], fewer):
        raise ValueError(f"{name}: {MIXES}; put its modules in evaluation mode, network.eval()")
    if modules:
        _REPEATABLE[network] = modes


def _is_close(one: torch.Tensor, other: torch.Tensor) -> bool:
    tolerance = torch.finfo(one.dtype).eps ** 0.5 if one.is_floating_point() else 0.0
    return torch.allclose(
        one, other, rtol=tolerance, atol=tolerance * float(one.abs().nan_to_num().max()), equal_nan=True
    )


@contextlib.contextmanager
def _kept_buffers(modules: list[torch.nn.Module]) -> Iterator[None]:
    """Leaves running statistics as they were."""
    buffers = [buffer for module in modules for buffer in module.buffers(recurse=False)]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, kept in zip(buffers, before, strict=True):
            buffer.copy_(kept)


def _in_forward_mode() -> bool:
    """Whether forward-mode derivatives are taken, which ``torch.no_grad`` does not stop."""
    number = torch.zeros(())
    try:
        forward_ad.make_dual(number, number)
    except RuntimeError:  # outside of every dual level
        return False
    return True


def _check_weights_stay(name: str, module: torch.nn.Module) -> None:
    """Refuse a module whose weights Pyro draws anew whenever they are read."""
    if not isinstance(module, PyroModule):
        return
    declared = {key: part for kind in type(module).__mro__ for key, part in vars(kind).items()}
    drawn = [key for key, part in declared.items() if isinstance(part, PyroSample)]
    drawn += vars(module).get("_pyro_samples", ())  # Pyro has no public name for those of an instance
    if drawn:
        raise TypeError(
            f"{name}: expected a network whose weights stay, got a PyroModule with the PyroSample {drawn[0]!r}, which "
            "is drawn anew at every evaluation and is no site of the model. Remedy: draw the weights by pyro.sample in "
            "the model, and give a function of them, as torch.func.functional_call makes of a plain module"
        )


def captured(function: Any) -> list[Any]:
    """What a function is made of, itself or its owner and what it refers to: modules, distributions, tensors."""
    defaults = getattr(function, "__defaults__", None) or ()
    cells = getattr(function, "__closure__", None) or ()
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    outer = [function.__globals__.get(name) for name in names]
    parts = (getattr(function, "__self__", function), *defaults, *map(_content, cells), *outer)
    kinds = (torch.nn.Module, EnergyDistribution, torch.Tensor)
    return [part for kind in kinds for part in parts if isinstance(part, kind)]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty as yet
        return None


def _tensors(function: Any) -> Iterator[torch.Tensor]:
    for part in captured(function):
        if isinstance(part, torch.nn.Module):
            yield from part.parameters()
            yield from part.buffers()
        else:
            yield part if isinstance(part, torch.Tensor) else torch.empty(0, dtype=part.dtype, device=part.device)


_NUM_PROBES = 3
_PROBED: weakref.WeakKeyDictionary[Any, dict[Any, np.ndarray]] = weakref.WeakKeyDictionary()


class NetworkAutoencoder(Reconstruction, CallableEnergy):
    """The family's base: a network that reconstructs, called on batches of values of shape ``event_shape``."""

    callable_name = "reconstruct"

    def _network(self, value: torch.Tensor) -> torch.Tensor:
        output = self._callable(value)
        shape = getattr(output, "shape", None)
        if shape != value.shape:
            got = type(output).__name__ if shape is None else tuple(shape)
            raise ValueError(f"reconstruct: expected an output of shape {tuple(value.shape)}, got {got}")
        return output

    _evaluate = _network

    def _pullback(self, value: torch.Tensor) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """The network's output and its vector-Jacobian product, with a graph only where it may be needed."""
        graph = in_function_transform() or self.needs_graph(value)
        output, product = pullback(self._network, value, graph)
        return output if graph else output.detach(), product

    def _on_device(self, name: str, parameter: ArrayLike) -> torch.Tensor:
        """A parameter on the network's device; the base refuses what is not real."""
        if isinstance(parameter, int) and not isinstance(parameter, bool):
            parameter = float(parameter)
        return as_tensor(name, parameter, self.device, self.dtype)

    def _over_event(self, parameter: torch.Tensor) -> torch.Tensor:
        """A number for each batch element, as a factor of values."""
        return parameter.reshape(parameter.shape + (1,) * self.event_dim)

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        return self._network(value)


def dependence(network: _Network, event_shape: tuple[int, ...], like: torch.Tensor) -> np.ndarray | None:
    """Which outputs change with which inputs, shape ``(D, D)`` by (output, input), at three random points.

    Modules (also those that a function closes over) are probed in evaluation mode, when they are met for the first time
    with some dependence, and changes within rounding are no change. ``None`` where the outputs cannot be looked at
    because they are traced, or tell nothing because they differ for equal inputs.

    :param like: a tensor of the network's type and device.
    """
    known = _PROBED.get(network, {})
    if event_shape not in known:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _evaluation_mode(network):
            found = _probe(network, event_shape, like)
        if found is None or not found.any():
            return found
        known[event_shape] = found
        _PROBED[network] = known
    return known[event_shape]


def _probe(network: _Network, event_shape: tuple[int, ...], like: torch.Tensor) -> np.ndarray | None:
    size = math.prod(event_shape)
    rng = np.random.default_rng(0)
    found = np.zeros((size, size), bool)
    for point, other in rng.normal(size=(_NUM_PROBES, 2, size)):
        changed = np.where(np.eye(size, dtype=bool), other, point)
        inputs = torch.as_tensor(np.stack([point, point, *changed])).to(like).reshape(-1, *event_shape)
        outputs = network(inputs)
        if not is_concrete(outputs):
            return None
        array = outputs.reshape(size + 2, size).double().cpu().numpy()
        tolerance = 100 * torch.finfo(like.dtype).eps * np.abs(array).max()
        if (np.abs(array[1] - array[0]) > tolerance).any():
            return None
        found |= (np.abs(array[2:] - array[0]) > tolerance).T
    return found


def _modules(network: _Network) -> Iterator[torch.nn.Module]:
    for part in captured(network):
        if isinstance(part, torch.nn.Module):
            yield from part.modules()


@contextlib.contextmanager
def _evaluation_mode(network: _Network) -> Iterator[None]:
    """A network's modules in evaluation mode, without the hooks of ``Module.train``."""
    modules = list(_modules(network))
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
