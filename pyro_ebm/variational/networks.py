"""Networks as learned parameters of a Pyro model: modules, under names of which each belongs to one model."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

import pyro
import torch

# Pyro knows parameters by their names alone: which model uses a name.
_OWNERS: "weakref.WeakValueDictionary[str, torch.nn.Module]" = weakref.WeakValueDictionary()


def check_network(name: str, network: torch.nn.Module) -> torch.nn.Module:
    """The network itself, refused unless it is a module."""
    if not isinstance(network, torch.nn.Module):
        raise TypeError(f"{name}: expected a torch.nn.Module, got {type(network).__name__}")
    return network


def register_parts(model: torch.nn.Module, name: str, **parts: torch.nn.Module) -> None:
    """Tell Pyro about the parameters of a model's parts; where its store has some of these names, they are taken over.

    :param model: whose parts they are.
    :param name: start of the names.
    :param parts: modules by the rest of their names.
    :raises ValueError: if another model of this process keeps its parameters under this name.
    """
    if _OWNERS.get(name) is not model:
        _claim_name(model, name)
    for part, module in parts.items():
        pyro.module(f"{name}.{part}", module, update_module_params=True)


def _claim_name(model: torch.nn.Module, name: str) -> None:
    """Refuse a name under which another model of this process keeps its parameters in Pyro's store."""
    other = _OWNERS.get(name)
    if other is not None:
        own = {id(parameter) for parameter in model.parameters()}
        others = {id(parameter) for parameter in other.parameters()} - own
        if any(id(parameter) in others for parameter in pyro.get_param_store().values()):
            raise ValueError(
                f"name: another {type(other).__name__} named {name!r} keeps its parameters in Pyro's store under this "
                "name, and both would share them; expected another name, or pyro.clear_param_store()"
            )
    _OWNERS[name] = model


@contextlib.contextmanager
def in_evaluation(model: torch.nn.Module) -> Iterator[None]:
    """Evaluate a model's modules as after ``.eval()``; afterwards each is in the mode that it was in.

    :param model: whose networks use their running statistics inside, and leave them.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


Model = TypeVar("Model", bound=torch.nn.Module)
Others = ParamSpec("Others")
Result = TypeVar("Result")


def evaluates(measure: Callable[Concatenate[Model, Others], Result]) -> Callable[Concatenate[Model, Others], Result]:
    """Let a function of a model run with the model in evaluation mode.

    :param measure: whose first argument is the model; it refuses what is none.
    """

    @functools.wraps(measure)
    def evaluated(vae: Model, *others: Others.args, **options: Others.kwargs) -> Result:
        with in_evaluation(vae) if isinstance(vae, torch.nn.Module) else contextlib.nullcontext():
            return measure(vae, *others, **options)

    return evaluated


def move_to(part: torch.nn.Module, *networks: torch.nn.Module) -> None:
    """Move a part to the networks' type and device."""
    tensors = (tensor for network in networks for tensor in network.parameters())
    like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    part.to(like.device, like.dtype)
