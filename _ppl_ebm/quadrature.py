"""Rules of the quadrature of autoencoder energies over few directions: how many nodes, how far, how good.

The innermost coordinate is integrated by Gauss-Legendre panels, the others by the trapezoidal rule.
"""

import numpy as np

#: Directions that quadrature covers.
MAX_DIRECTIONS = 3
#: Nodes of each outer coordinate, by the number of directions.
OUTER_NODES = {1: 1, 2: 385, 3: 97}
#: Panels of the innermost coordinate, by the number of directions.
PANELS = {1: 64, 2: 24, 3: 16}
#: Nodes and weights of one panel over (-1, 1).
PANEL_NODES, PANEL_WEIGHTS = np.polynomial.legendre.leggauss(8)
#: Standard deviations beyond which a Gaussian has less than 1e-16 of its mass.
TAIL = 8.5
#: What log Z on every second node may differ by before the grid is found too coarse.
TOLERANCE = 1e-3
#: Shares, over and over, of the rows of W in the first direction: unequal, so that equal rows do not cancel.
MIXTURE = (1.0, 0.8, 0.6)


def outer_grid(directions: int) -> np.ndarray:
    """Nodes of each outer coordinate over (-1, 1).

    >>> len(outer_grid(3))
    97
    """
    return np.linspace(-1, 1, OUTER_NODES[directions])


def panel_grid(num_panels: int) -> np.ndarray:
    """Edges of equal panels over (-1, 1).

    >>> panel_grid(2).tolist()
    [-1.0, 0.0, 1.0]
    """
    return np.linspace(-1, 1, num_panels + 1)


def mixture(num_rows: int) -> np.ndarray:
    """Shares of all rows in the first direction."""
    return np.resize(MIXTURE, num_rows)
