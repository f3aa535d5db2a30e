"""The command line that the examples share."""

import argparse
import importlib
import pathlib
from collections.abc import Callable
from types import ModuleType


def parse(
    program: str,
    doc: str | None,
    arguments: list[str] | None,
    add: Callable[[argparse.ArgumentParser], object] | None = None,
) -> tuple[argparse.Namespace, ModuleType]:
    """Read ``--backend``, ``--out``, ``--seed``, ``--quick`` and ``--quiet``, and import that half of the program.

    :param program: name of the program, ``<program>_<backend>.py`` is its half.
    :param doc: its documentation, whose first line describes it.
    :param arguments: ``None`` takes those of the process.
    :param add: adds further options to the parser.
    :return: the options and the module; the folder of the pictures exists.
    """
    parser = argparse.ArgumentParser(description=(doc or program).split("\n")[0])
    parser.add_argument("--backend", choices=("numpyro", "pyro"), default="numpyro")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"), help="folder of the pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a smoke test: poor results, all pictures")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    if add is not None:
        add(parser)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    return options, importlib.import_module(f"{program}_{options.backend}")
