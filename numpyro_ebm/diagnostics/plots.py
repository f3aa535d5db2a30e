"""Pictures of fields of two dimensions; matplotlib is imported when one is drawn."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from numpyro_ebm.diagnostics.equilibria import FixedPoints
from numpyro_ebm.diagnostics.fields import as_function, resolve
from numpyro_ebm.infer.checks import check_positive_int

# Marker, colour and size of each kind of fixed point.
_MARKERS = {
    "sink": ("o", "#d1495b", 90),
    "saddle": ("X", "#edae49", 90),
    "source": ("^", "#66a182", 90),
    "degenerate": ("D", "#8d96a3", 60),
}
_INK = "#1b2a41"


def plot_field(
    field: Any,
    energy: Any = None,
    fixed_points: FixedPoints | None = None,
    data: Any = None,
    bounds: Any = None,
    num_points: int = 101,
    ax: Any = None,
) -> Any:
    """Draw a field of two dimensions: its streamlines over the energy, its fixed points, and data.

    Lines are thicker where the field is stronger. The energy is darkest where it is lowest, and white above its 95th
    percentile in the picture.

    :param field: a function, a module, or an object with ``field`` or ``score``, as in
        :mod:`numpyro_ebm.diagnostics.fields`, of two dimensions.
    :param energy: a function of ``(..., 2)`` or ``(2,)`` to one number each, or an object with a method ``energy``;
        ``None`` takes that of ``field``, where it has one.
    :param fixed_points: from :func:`numpyro_ebm.diagnostics.equilibria.fixed_points`: a marker for each kind.
    :param data: shape ``(..., 2)``, drawn as dots.
    :param bounds: ``(low, high)`` for both axes, or one such pair for each; ``None`` frames the data and fixed points,
        or else (-3, 3).
    :param num_points: grid points along each axis, at which field and energy are evaluated.
    :param ax: matplotlib axes to draw in; ``None`` makes a figure.
    :return: the matplotlib axes.
    :raises TypeError: for a ``field`` that is none.
    :raises ValueError: for a ``field``, ``data`` or ``fixed_points`` not of two dimensions, or ``bounds`` out of order.
    :raises ImportError: if matplotlib is not installed.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> from numpyro_ebm.diagnostics.plots import plot_field
    >>> axes = plot_field(GaussianBernoulliRBM(jnp.array([[2.0], [1.0]])), bounds=(-2.0, 4.0), num_points=20)
    >>> [float(limit) for limit in axes.get_xlim()]
    [-2.0, 4.0]
    """
    check_positive_int("num_points", num_points)
    points = None if fixed_points is None else _planar("fixed_points", fixed_points.points)
    dots = None if data is None else _planar("data", data)
    box = _box(bounds, [array for array in (points, dots) if array is not None and len(array)])
    axis, other = (np.linspace(low, high, num_points) for low, high in box)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, other), -1))
    flow, heights = _flow(field, grid), _heights(field, energy, grid)
    ax = _new_axes() if ax is None else ax
    if heights is not None:
        _draw_energy(ax, axis, other, heights)
    _draw_flow(ax, axis, other, flow, dark=heights is None)
    if dots is not None:
        colour = "#7fb7de" if heights is None else "white"
        ax.scatter(*dots.T, s=9, color=colour, edgecolors=_INK, linewidths=0.4, alpha=0.8, label="data", zorder=3)
    for kind, members in _by_kind(points, fixed_points):
        marker, colour, size = _MARKERS[kind]
        ax.scatter(*members.T, size, colour, marker=marker, edgecolors=_INK, linewidths=1.2, label=kind, zorder=4)
    _finish(ax, box)
    return ax


def _planar(name: str, value: Any) -> np.ndarray:
    """``value`` as an array of shape ``(N, 2)``."""
    array = np.asarray(value)
    if array.ndim == 0 or array.shape[-1] != 2:
        raise ValueError(f"{name}: expected shape (..., 2), got {array.shape}")
    return array.reshape(-1, 2)


def _box(bounds: Any, arrays: list[np.ndarray]) -> np.ndarray:
    """Lower and upper limit of both axes, shape ``(2, 2)``."""
    if bounds is None and arrays:
        points = np.concatenate(arrays)
        low, high = points.min(0), points.max(0)
        margin = np.maximum(0.15 * (high - low), 0.05 * np.max(high - low) or 1.0)
        return np.stack([low - margin, high + margin], -1)
    box = np.asarray((-3.0, 3.0) if bounds is None else bounds, float)
    if box.shape not in ((2,), (2, 2)) or not np.all(np.isfinite(box)) or not np.all(box[..., 0] < box[..., 1]):
        raise ValueError(f"bounds: expected (low, high), or one such pair for each axis, got {bounds!r}")
    return np.broadcast_to(box, (2, 2))


def _flow(field: Any, grid: jax.Array) -> np.ndarray:
    """The field at a grid of shape ``(num_points, num_points, 2)``."""
    if isinstance(field, Distribution) and (shape := tuple(field.batch_shape + field.event_shape)) != (2,):
        raise ValueError(f"field: plot_field expected a distribution of two dimensions, got shape {shape}")
    as_function(field, "field", ("field", "score"))
    try:
        function, grid = resolve(field, grid)
        return np.asarray(function(grid))
    except (TypeError, ValueError) as error:
        raise ValueError(f"field: plot_field expected a field of two dimensions, but on shape (2,): {error}") from error


def _heights(field: Any, energy: Any, grid: jax.Array) -> np.ndarray | None:
    """The energy at the grid, shape ``(num_points, num_points)``."""
    owner = field if energy is None else energy
    function = getattr(owner, "energy", None) if hasattr(type(owner), "energy") else energy
    if function is None:
        return None
    if not callable(function):
        raise TypeError(f"energy: expected a function or an object with a method `energy`, got {energy!r}")
    heights = function(grid) if isinstance(owner, Distribution) else jax.vmap(jax.vmap(function))(grid)
    if heights.shape != grid.shape[:-1]:
        raise ValueError(f"energy: expected a number for each point, got shape {heights.shape[2:]}")
    return np.asarray(heights)


def _new_axes() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError('plot_field needs matplotlib; install it with: pip install "ppl-ebm[examples]"') from error
    return pyplot.subplots(figsize=(6.4, 5.4), layout="constrained")[1]


def _draw_energy(ax: Any, axis: np.ndarray, other: np.ndarray, heights: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    finite = heights[np.isfinite(heights)]
    if not finite.size:
        raise ValueError("energy: expected finite numbers somewhere within bounds, got none")
    levels = MaxNLocator(24).tick_values(finite.min(), np.percentile(finite, 95))
    darkest = levels[0] - 0.4 * (levels[-1] - levels[0])  # keeps the valleys light enough for the lines over them
    heights = np.ma.masked_invalid(heights)
    filled = ax.contourf(axis, other, heights, levels, cmap="GnBu_r", vmin=darkest, extend="max", zorder=0)
    ax.contour(
        axis, other, heights, levels[::2], colors="white", linewidths=0.5, linestyles="solid", alpha=0.6, zorder=1
    )
    ax.figure.colorbar(filled, ax=ax, label="energy", shrink=0.9)


def _draw_flow(ax: Any, axis: np.ndarray, other: np.ndarray, flow: np.ndarray, dark: bool) -> None:
    speed = np.linalg.norm(flow, axis=-1)
    width = 0.4 + 1.2 * np.sqrt(np.minimum(speed / (np.nanpercentile(speed, 90) or 1.0), 1.0))
    colour = _INK if dark else "#33475f"
    ax.streamplot(
        axis, other, *np.moveaxis(flow, -1, 0), color=colour, linewidth=width, density=1.1, arrowsize=0.8, zorder=2
    )


def _by_kind(points: np.ndarray | None, fixed_points: FixedPoints | None) -> Iterator[tuple[str, np.ndarray]]:
    """The points of each kind that there is."""
    if points is None or fixed_points is None:
        return
    kinds = np.array(fixed_points.kinds)
    for kind in _MARKERS:
        if kind in fixed_points.kinds:
            yield kind, points[kinds == kind]


def _finish(ax: Any, box: np.ndarray) -> None:
    ax.set(xlim=box[0], ylim=box[1], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False, handletextpad=0.2)
