"""Pictures of fields of two dimensions; matplotlib is imported when one is drawn."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.distributions import Distribution

from _ppl_ebm.checks import check_positive_int
from _ppl_ebm.equilibria import FixedPoints
from _ppl_ebm.fields import HasEnergy, energy_of
from _ppl_ebm.plots import check_heights, check_plane, draw_field, explained, frame, grid_of, planar
from pyro_ebm.diagnostics.fields import Field, as_function, reference, resolve, to_numpy
from pyro_ebm.sampling.types import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EnergyFunction: TypeAlias = Callable[[torch.Tensor], torch.Tensor] | HasEnergy[torch.Tensor]


def plot_field(
    field: Field,
    energy: EnergyFunction | None = None,
    *,
    fixed_points: FixedPoints[torch.Tensor] | None = None,
    data: ArrayLike | None = None,
    bounds: npt.ArrayLike | None = None,
    num_points: int = 101,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a field of two dimensions: its streamlines over the energy, its fixed points, and data.

    Lines are thicker where the field is stronger. The energy is darkest where it is lowest, and white above its 95th
    percentile in the picture.

    :param field: a function, a module, or an object with ``field`` or ``score``, as in
        :mod:`pyro_ebm.diagnostics.fields`, of two dimensions.
    :param energy: a function of ``(..., 2)`` to ``(...)``, or an object with a method ``energy``;
        ``None`` takes that of ``field``, where it has one.
    :param fixed_points: from :func:`pyro_ebm.diagnostics.fixed_points`: a marker for each kind.
    :param data: shape ``(..., 2)``, drawn as dots.
    :param bounds: ``(low, high)`` for both axes, or one such pair for each; ``None`` frames the data and fixed points,
        or else (-3, 3).
    :param num_points: grid points along each axis, at which field and energy are evaluated.
    :param ax: matplotlib axes to draw in; ``None`` makes a figure.
    :return: the matplotlib axes.
    :raises TypeError: for a ``field`` that is none.
    :raises ValueError: for a ``field``, ``data`` or ``fixed_points`` not of two dimensions, or ``bounds`` out of order.
    :raises ImportError: if matplotlib is not installed.

    >>> import torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.diagnostics.plots import plot_field
    >>> axes = plot_field(GaussianBernoulliRBM(torch.tensor([[2.0], [1.0]])), bounds=(-2.0, 4.0), num_points=20)
    >>> [float(limit) for limit in axes.get_xlim()]
    [-2.0, 4.0]
    """
    check_positive_int("num_points", num_points)
    points = None if fixed_points is None else planar("fixed_points", to_numpy(fixed_points.points))
    dots = None if data is None else planar("data", to_numpy(data))
    box = frame(bounds, points, dots)
    like = reference(field, None if fixed_points is None else fixed_points.points, data)
    grid = torch.tensor(grid_of(box, num_points), dtype=like.dtype, device=like.device)
    flow, heights = _flow(field, grid), _heights(field, energy, grid)
    kinds = () if fixed_points is None else fixed_points.kinds
    return draw_field(ax, box, flow, heights, data=dots, points=points, kinds=kinds)


def _flow(field: Field, grid: torch.Tensor) -> np.ndarray:
    """The field at a grid of shape ``(num_points, num_points, 2)``."""
    if isinstance(field, Distribution):
        check_plane(field.batch_shape + field.event_shape)
    as_function(field, "field", ("field", "score"))
    with explained():
        function, grid, _ = resolve(field, grid)
        return to_numpy(function(grid))


def _heights(field: Field, energy: EnergyFunction | None, grid: torch.Tensor) -> np.ndarray | None:
    """The energy at the grid, shape ``(num_points, num_points)``."""
    function = energy_of(field, energy)
    if function is None:
        return None
    heights = function(grid)
    check_heights(heights.shape, grid.shape[:-1])
    return to_numpy(heights)
