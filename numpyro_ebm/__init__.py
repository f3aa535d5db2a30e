"""Energy-based models as first-class NumPyro distributions."""

try:
    import jax as _jax  # noqa: F401
    import numpyro as _numpyro  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"numpyro_ebm needs JAX and NumPyro, and {error.name!r} could not be imported. "
        'Install the extra that brings them: pip install "ppl-ebm[numpyro]"'
    ) from error

from numpyro_ebm import infer  # first: its kernels need distributions, and these its samplers

# isort: split
from numpyro_ebm import diagnostics, distributions, objectives, variational
from numpyro_ebm.distributions import *  # noqa: F403
from numpyro_ebm.distributions import __all__ as _distribution_names

__version__ = "0.1.0"

__all__ = ["diagnostics", "distributions", "infer", "objectives", "variational", *_distribution_names]
