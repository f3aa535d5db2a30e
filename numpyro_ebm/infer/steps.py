"""Functional Markov transitions, under the name that users know: see :mod:`numpyro_ebm.sampling.steps`."""

from numpyro_ebm.sampling.steps import *  # noqa: F403
