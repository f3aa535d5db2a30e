"""Energy-based models as first-class Pyro distributions."""

try:
    import pyro as _pyro  # noqa: F401
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"pyro_ebm needs PyTorch and Pyro, and {error.name!r} could not be imported. "
        'Install the extra that brings them: pip install "ppl-ebm[pyro]"'
    ) from error

from pyro_ebm import infer  # first: its kernels need distributions, and these its samplers

# isort: split
from pyro_ebm import diagnostics, distributions, objectives, variational
from pyro_ebm.distributions import *  # noqa: F403
from pyro_ebm.distributions import __all__ as _distribution_names

__version__ = "0.1.0"

__all__ = ["diagnostics", "distributions", "infer", "objectives", "variational", *_distribution_names]
