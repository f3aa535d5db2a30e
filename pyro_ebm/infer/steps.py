"""Functional Markov transitions, under the name that users know: see :mod:`pyro_ebm.sampling.steps`."""

from pyro_ebm.sampling.steps import *  # noqa: F403
