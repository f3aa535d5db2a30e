"""Calls that pass by position what must be named: an error that shows the call as it should be."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def shows_its_call(function: _Function) -> _Function:
    """A function that answers surplus positional arguments with its signature.

    Python's own message counts arguments, and does not say how to name them.

    :param function: a method, whose first argument is not counted; signatures with ``*args`` are left alone.

    >>> class Machine:
    ...     @shows_its_call
    ...     def __init__(self, weights, *, bias=0.0): ...
    >>> Machine(1.0, 2.0)
    Traceback (most recent call last):
    TypeError: Machine: expected 1 positional argument, got 2; write Machine(weights, *, bias=0.0)
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1:]
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return function
    count = sum(parameter.kind in _POSITIONAL for parameter in parameters)
    owner, _, method = function.__qualname__.rpartition(".")
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]

    @functools.wraps(function)
    def checked(self: Any, *arguments: Any, **named: Any) -> Any:
        if len(arguments) > count:
            name = f"{owner}.{method}" if method != "__init__" else type(self).__name__
            call = f"{name}{inspect.Signature(bare)}"
            plural = "" if count == 1 else "s"
            raise TypeError(f"{name}: expected {count} positional argument{plural}, got {len(arguments)}; write {call}")
        return function(self, *arguments, **named)

    return checked  # type: ignore[return-value]


def show_constructor(cls: type) -> None:
    """Let the constructor that ``cls`` defines itself, if it does, show its call; for ``__init_subclass__``."""
    if "__init__" in vars(cls):
        cls.__init__ = shows_its_call(vars(cls)["__init__"])  # type: ignore[misc]
