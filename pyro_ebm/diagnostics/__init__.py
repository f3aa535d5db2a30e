"""Looking at results: export to ArviZ."""

from pyro_ebm.diagnostics.arviz import to_arviz

__all__ = ["to_arviz"]
