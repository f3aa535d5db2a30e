"""Looking at results: diagnostics of vector fields, plots, export to ArviZ."""

from pyro_ebm.diagnostics.arviz import to_arviz
from pyro_ebm.diagnostics.equilibria import FixedPoints, fixed_points
from pyro_ebm.diagnostics.fields import asymmetry, circulation, divergence
from pyro_ebm.diagnostics.plots import plot_field

__all__ = ["FixedPoints", "asymmetry", "circulation", "divergence", "fixed_points", "plot_field", "to_arviz"]
