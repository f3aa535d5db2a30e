"""Energy-based models as first-class NumPyro distributions."""

import importlib
from typing import TYPE_CHECKING

try:
    import jax as _jax  # noqa: F401
    import numpyro as _numpyro  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"numpyro_ebm needs JAX and NumPyro, and {error.name!r} could not be imported. "
        'Install the extra that brings them: pip install "ppl-ebm[numpyro]"'
    ) from error

from numpyro_ebm import distributions, infer, objectives, sampling
from numpyro_ebm.distributions import *  # noqa: F403
from numpyro_ebm.distributions import __all__ as _distribution_names

if TYPE_CHECKING:
    from types import ModuleType

    from numpyro_ebm import diagnostics, testing, variational

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
        return importlib.import_module(f"numpyro_ebm.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
