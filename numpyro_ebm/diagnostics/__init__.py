"""Looking at results: diagnostics of vector fields, plots, export to ArviZ."""

from numpyro_ebm.diagnostics.arviz import to_arviz
from numpyro_ebm.diagnostics.equilibria import FixedPoints, fixed_points
from numpyro_ebm.diagnostics.fields import asymmetry, circulation, divergence
from numpyro_ebm.diagnostics.plots import plot_field

__all__ = ["FixedPoints", "asymmetry", "circulation", "divergence", "fixed_points", "plot_field", "to_arviz"]
