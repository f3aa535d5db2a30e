r"""Rules of the quadrature of autoencoder energies over few directions: how many nodes, how far, how good.

The innermost coordinate is integrated by Gauss-Legendre panels, the others by the trapezoidal rule, over a range that
is narrowed to where the density is. What makes that safe is a bound on how sharply the log-density bends down: where
:math:`f'' \ge -\kappa`, its value between two nodes a distance h apart is at most the larger of theirs plus
:math:`\kappa h^2 / 8`, and no peak is narrower than a Gaussian of variance :math:`1 / \kappa`.
"""

import numpy as np

#: Directions that quadrature covers.
MAX_DIRECTIONS = 3
#: Nodes of each outer coordinate, by the number of directions.
OUTER_NODES = {1: 1, 2: 385, 3: 97}
#: Panels of the innermost coordinate, by the number of directions.
PANELS = {1: 128, 2: 64, 3: 24}
#: Nodes and weights of one panel over (-1, 1).
PANEL_NODES, PANEL_WEIGHTS = np.polynomial.legendre.leggauss(8)
#: Standard deviations beyond which a Gaussian has less than 1e-16 of its mass.
TAIL = 8.5
#: What log Z on every second node may differ by before the grid is found too coarse, and how many roundings of log Z
#: more.
TOLERANCE, ROUNDINGS = 1e-3, 32
#: Where the density has fallen by this much, in nats, it is left out of the range.
DEPTH = 42.0
#: Nodes of each coordinate on which a range is narrowed, by the number of directions, and how often that is done.
SEARCH_NODES, NUM_SEARCHES = {1: 257, 2: 65, 3: 25}, 6
#: Nodes of each coordinate between which the cells lie that exact draws are proposed from, by the number of directions,
#: how often one is proposed at the most, and by how many nats a density may exceed its corners' for such proposals.
CELL_NODES, MAX_PROPOSALS, MOST_BETWEEN = {1: 1025, 2: 129, 3: 33}, 10_000, 6.0
#: Panels, and steps of the trapezoidal rule, in standard deviations of the narrowest peak that there can be: beyond,
#: the rules and their coarser halves may both step over one.
WIDEST_PANEL, WIDEST_STEP = 6.0, 2.0
#: Inputs at which the derivative of an activation is looked at whose range nobody gave.
DERIVATIVE_GRID = np.linspace(-100, 100, 20_001)
#: Shares, over and over, of the rows of W in the first direction: unequal, so that equal rows do not cancel.
MIXTURE = (1.0, 0.8, 0.6)


def outer_grid(directions: int) -> np.ndarray:
    """Nodes of each outer coordinate over (-1, 1).

    >>> len(outer_grid(3))
    97
    """
    return np.linspace(-1, 1, OUTER_NODES[directions])


def search_grid(directions: int) -> np.ndarray:
    """Nodes of each coordinate over (-1, 1) on which a range is narrowed."""
    return np.linspace(-1, 1, SEARCH_NODES[directions])


def widest_cells(directions: int) -> np.ndarray:
    """The widest cell of each coordinate's rule, as a share of half its range and in standard deviations.

    >>> widest_cells(1).tolist()
    [384.0]
    """
    outer = [0.5 * WIDEST_STEP * (OUTER_NODES[directions] - 1)] * (directions - 1)
    return np.array([0.5 * WIDEST_PANEL * PANELS[directions], *outer])


def panel_grid(num_panels: int) -> np.ndarray:
    """Edges of equal panels over (-1, 1).

    >>> panel_grid(2).tolist()
    [-1.0, 0.0, 1.0]
    """
    return np.linspace(-1, 1, num_panels + 1)


def mixture(num_rows: int) -> np.ndarray:
    """Shares of all rows in the first direction."""
    return np.resize(MIXTURE, num_rows)
