"""Energy-based models as first-class Pyro distributions."""

import importlib
from typing import TYPE_CHECKING

try:
    import pyro as _pyro  # noqa: F401
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"pyro_ebm needs PyTorch and Pyro, and {error.name!r} could not be imported. "
        'Install the extra that brings them: pip install "ppl-ebm[pyro]"'
    ) from error

from pyro_ebm import distributions, infer, objectives, sampling
from pyro_ebm.distributions import *  # noqa: F403
from pyro_ebm.distributions import __all__ as _distribution_names

if TYPE_CHECKING:
    from types import ModuleType

    from pyro_ebm import diagnostics, testing, variational

__version__ = "0.2.0"

__all__ = [
    "diagnostics",
    "distributions",
    "infer",
    "objectives",
    "sampling",
    "testing",
    "variational",
    *_distribution_names,
]


def __getattr__(name: str) -> "ModuleType":
    """Import what most programs do without on first use, so that importing the package stays light."""
    if name in ("diagnostics", "testing", "variational"):
        return importlib.import_module(f"pyro_ebm.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
