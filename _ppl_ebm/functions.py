"""How many functions one place of a program makes: each is another one to a compiler that goes by their identity."""

import functools
import threading
import warnings
import weakref
from collections.abc import Iterable
from types import CodeType, FunctionType

#: Functions of one place that are too many.
MAX_FUNCTIONS = 30


class _Made:
    """Functions of one place: how many there were, and those that are still alive."""

    def __init__(self) -> None:
        self.count = 0
        self.alive: weakref.WeakSet[object] = weakref.WeakSet()


_MADE: weakref.WeakKeyDictionary[CodeType, _Made] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def count_functions(name: str, functions: Iterable[object], stacklevel: int) -> None:
    """Note functions that are about to be compiled, and warn once of a place that has made too many.

    None is kept alive.

    :param name: the argument that they were given as.
    :param functions: Python functions and partial ones are counted, anything else is not.
    """
    for function in functions:
        code = _code(function)
        if code is not None and _is_too_many(code, function):
            warnings.warn(
                f"{name}: expected one function for all calls, got the {MAX_FUNCTIONS}th that {code.co_qualname} at "
                f"{code.co_filename}:{code.co_firstlineno} made; each is compiled anew, which takes seconds and memory "
                "that is not given back. Make the function once, outside the loop, and give arrays that change as "
                "arguments: jax.tree_util.Partial(function, arrays), or a network's own arrays",
                stacklevel=stacklevel + 1,
            )


def _is_too_many(code: CodeType, function: object) -> bool:
    with _LOCK:
        made = _MADE.setdefault(code, _Made())
        if function in made.alive:
            return False
        made.alive.add(function)
        made.count += 1
        return made.count == MAX_FUNCTIONS


def _code(function: object) -> CodeType | None:
    while isinstance(function, functools.partial):
        function = function.func
    return function.__code__ if isinstance(function, FunctionType) else None
