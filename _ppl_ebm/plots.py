"""The drawing half of the plots: NumPy arrays in, matplotlib axes out. matplotlib is imported when one is drawn."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from _ppl_ebm.checks import check_positive, check_positive_int

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Marker, colour and size of each kind of fixed point.
_MARKERS = {
    "sink": ("o", "#d1495b", 90),
    "saddle": ("X", "#edae49", 90),
    "source": ("^", "#66a182", 90),
    "degenerate": ("D", "#8d96a3", 60),
}
_INK = "#1b2a41"
_GAP = 1  # pixels between images


def new_axes(owner: str, size: tuple[float, float]) -> "Axes":
    """The axes of a new figure.

    :param owner: the function that draws, for the message where matplotlib is missing.
    :param size: width and height in inches.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(f'{owner} needs matplotlib; install it with: pip install "ppl-ebm[examples]"') from error
    return pyplot.subplots(figsize=size, layout="constrained")[1]


# ---------------------------------------------------------------------- fields of two dimensions


def planar(name: str, array: np.ndarray) -> np.ndarray:
    """``array`` in the shape ``(N, 2)``."""
    if array.ndim == 0 or array.shape[-1] != 2:
        raise ValueError(f"{name}: expected shape (..., 2), got {array.shape}")
    return array.reshape(-1, 2)


def frame(bounds: ArrayLike | None, *points: np.ndarray | None) -> np.ndarray:
    """Lower and upper limit of both axes, shape ``(2, 2)``.

    :param bounds: ``(low, high)`` for both axes, or one such pair for each; ``None`` frames ``points``.
    :param points: each of shape ``(N, 2)``; without any, the limits are -3 and 3.

    >>> frame(None, np.array([[0.0, 0.0], [2.0, 1.0]])).round(2).tolist()
    [[-0.3, 2.3], [-0.15, 1.15]]
    """
    shown = [array for array in points if array is not None and len(array)]
    if bounds is None and shown:
        low, high = np.concatenate(shown).min(0), np.concatenate(shown).max(0)
        margin = np.maximum(0.15 * (high - low), 0.05 * np.max(high - low) or 1.0)
        return np.stack([low - margin, high + margin], -1)
    box = np.asarray((-3.0, 3.0) if bounds is None else bounds, float)
    if box.shape not in ((2,), (2, 2)) or not np.all(np.isfinite(box)) or not np.all(box[..., 0] < box[..., 1]):
        raise ValueError(f"bounds: expected (low, high), or one such pair for each axis, got {bounds!r}")
    return np.broadcast_to(box, (2, 2))


def grid_of(box: np.ndarray, num_points: int) -> np.ndarray:
    """Points of a box, shape ``(num_points, num_points, 2)``, the first coordinate fastest."""
    return np.stack(np.meshgrid(*_ticks(box, num_points)), -1)


def check_plane(shape: tuple[int, ...]) -> None:
    """Refuse distributions, of this batch and event shape, of other values than pairs."""
    if tuple(shape) != (2,):
        raise ValueError(f"field: plot_field expected a distribution of two dimensions, got shape {tuple(shape)}")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What a field raises on pairs says then that it was asked for them."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"field: plot_field expected a field of two dimensions, but on shape (2,): {error}") from error


def check_heights(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse energies that are not one number for each point of the grid."""
    if tuple(shape) != tuple(expected):
        raise ValueError(f"energy: expected a number for each point, shape {tuple(expected)}, got {tuple(shape)}")


def draw_field(
    ax: "Axes | None",
    box: np.ndarray,
    flow: np.ndarray,
    heights: np.ndarray | None = None,
    *,
    data: np.ndarray | None = None,
    points: np.ndarray | None = None,
    kinds: Sequence[str] = (),
) -> "Axes":
    """Streamlines over an energy, data and fixed points.

    :param ax: axes to draw in; ``None`` makes a figure.
    :param box: limits of both axes, shape ``(2, 2)``.
    :param flow: the field at the points of :func:`grid_of`, shape ``(n, n, 2)``.
    :param heights: the energy there, shape ``(n, n)``.
    :param data: shape ``(N, 2)``.
    :param points: fixed points, shape ``(M, 2)``.
    :param kinds: of the fixed points.
    """
    ax = new_axes("plot_field", (6.4, 5.4)) if ax is None else ax
    x, y = _ticks(box, len(flow))
    if heights is not None:
        _draw_energy(ax, x, y, heights)
    _draw_flow(ax, x, y, flow, "#33475f" if heights is not None else _INK)
    if data is not None:
        _draw_data(ax, data, "white" if heights is not None else "#7fb7de")
    if points is not None:
        _draw_fixed_points(ax, points, kinds)
    _finish(ax, box)
    return ax


def _ticks(box: np.ndarray, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.linspace(low, high, num_points) for low, high in box)
    return x, y


def _draw_energy(ax: "Axes", x: np.ndarray, y: np.ndarray, heights: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    finite = heights[np.isfinite(heights)]
    if not finite.size:
        raise ValueError("energy: expected finite numbers somewhere within bounds, got none")
    levels = MaxNLocator(24).tick_values(finite.min(), float(np.percentile(finite, 95)))
    darkest = levels[0] - 0.4 * (levels[-1] - levels[0])  # keeps the valleys light enough for the lines over them
    heights = np.ma.masked_invalid(heights)
    filled = ax.contourf(x, y, heights, levels, cmap="GnBu_r", vmin=darkest, extend="max", zorder=0)
    ax.contour(x, y, heights, levels[::2], colors="white", linewidths=0.5, linestyles="solid", alpha=0.6, zorder=1)
    ax.figure.colorbar(filled, ax=ax, label="energy", shrink=0.9)


def _draw_flow(ax: "Axes", x: np.ndarray, y: np.ndarray, flow: np.ndarray, colour: str) -> None:
    speed = np.linalg.norm(flow, axis=-1)
    width = 0.4 + 1.2 * np.sqrt(np.minimum(speed / (np.nanpercentile(speed, 90) or 1.0), 1.0))
    towards_x, towards_y = flow[..., 0], flow[..., 1]
    ax.streamplot(x, y, towards_x, towards_y, 1.1, width, colour, arrowsize=0.8, zorder=2)


def _draw_data(ax: "Axes", data: np.ndarray, colour: str) -> None:
    x, y = data.T
    ax.scatter(x, y, 9, colour, edgecolors=_INK, linewidths=0.4, alpha=0.8, label="data", zorder=3)


def _draw_fixed_points(ax: "Axes", points: np.ndarray, kinds: Sequence[str]) -> None:
    for kind, (marker, colour, size) in _MARKERS.items():
        if kind in kinds:
            x, y = points[np.array(kinds) == kind].T
            ax.scatter(x, y, size, colour, marker=marker, edgecolors=_INK, linewidths=1.2, label=kind, zorder=4)


def _finish(ax: "Axes", box: np.ndarray) -> None:
    ax.set(xlim=box[0], ylim=box[1], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False, handletextpad=0.2)


# ---------------------------------------------------------------------- autoencoders


def image_shape_of(given: tuple[int, int] | None, event_shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of one datum.

    :param given: ``None`` where that is the shape of one datum.

    >>> image_shape_of((2, 3), (6,))
    (2, 3)
    """
    shape = tuple(event_shape if given is None else given)
    if len(shape) != 2 or int(np.prod(shape)) != int(np.prod(event_shape)):
        raise ValueError(
            f"image_shape: expected a height and a width for data of shape {tuple(event_shape)}, got {given!r}"
        )
    return shape[0], shape[1]


def check_traversal(span: float, num_points: int, condition: object, is_conditional: bool) -> None:
    """Refuse numbers that are not positive, and a condition of a model that takes none, or none of one that does."""
    check_positive("span", span)
    check_positive_int("num_points", num_points)
    if is_conditional == (condition is None):
        raise TypeError(f"condition: expected one for a CVAE and none for a VAE, got {condition!r}")


def check_start(shape: tuple[int, ...], latent_size: int) -> None:
    """Refuse whatever is not one latent vector."""
    if tuple(shape) != (latent_size,):
        raise ValueError(f"start: expected shape ({latent_size},), got {tuple(shape)}")


def draw_images(ax: "Axes | None", owner: str, images: np.ndarray, labels: Sequence[str]) -> "Axes":
    """Rows of grey images, dark where values are high.

    :param ax: axes to draw in; ``None`` makes a figure.
    :param owner: the function that draws.
    :param images: shape ``(rows, columns, height, width)``.
    :param labels: of the rows.
    """
    rows, columns, height, width = images.shape
    ax = new_axes(owner, (0.3 + 0.5 * columns, 0.5 * rows)) if ax is None else ax
    padded = np.pad(images, ((0, 0), (0, 0), (0, _GAP), (0, _GAP)), constant_values=np.nan)
    picture = padded.transpose(0, 2, 1, 3).reshape(rows * (height + _GAP), columns * (width + _GAP))
    low, high = min(0.0, images.min()), max(1.0, images.max())
    ax.imshow(np.ma.masked_invalid(picture), cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
    ax.set_yticks((height + _GAP) * np.arange(rows) + 0.5 * (height - 1), labels)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def check_latent(latent_size: int, num_draws: int) -> None:
    """Refuse a single latent dimension, and a number of draws that is not positive."""
    if latent_size < 2:
        raise ValueError(f"vae: plot_latent expected at least two latent dimensions, got {latent_size}")
    check_positive_int("num_draws", num_draws)


def check_labels(labels: ArrayLike | None, count: int) -> None:
    """Refuse labels that are not one for each datum."""
    if labels is not None and np.shape(labels) != (count,):
        raise ValueError(f"labels: expected shape ({count},), got {np.shape(labels)}")


def draw_latent(ax: "Axes | None", posterior: np.ndarray, prior: np.ndarray, labels: ArrayLike | None = None) -> "Axes":
    """Latent draws of data, coloured by their labels, over draws from the prior in grey.

    More than two dimensions are projected on the first two principal components of ``posterior``.

    :param ax: axes to draw in; ``None`` makes a figure.
    :param posterior: a draw for each datum, shape ``(N, latent_size)``.
    :param prior: shape ``(num_draws, latent_size)``.
    :param labels: of the data, shape ``(N,)``.
    """
    title = "$z_{}$"
    if posterior.shape[1] > 2:
        centre = posterior.mean(0)
        directions = np.linalg.svd(posterior - centre, full_matrices=False)[2][:2].T
        posterior, prior = (posterior - centre) @ directions, (prior - centre) @ directions
        title = "principal component {} of z"
    ax = new_axes("plot_latent", (5.4, 5.0)) if ax is None else ax
    prior_dots = ax.scatter(prior[:, 0], prior[:, 1], 4, color="0.8", linewidths=0)
    x, y = posterior.T
    dots = ax.scatter(x, y, 6, labels, cmap="tab10" if labels is not None else None, linewidths=0)
    handles, names = ([dots], ["q(z)"]) if labels is None else dots.legend_elements()
    legend = [prior_dots, *handles], ["prior", *names]
    ax.legend(*legend, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handletextpad=0.1)
    ax.set(xlabel=title.format(1), ylabel=title.format(2), aspect="equal")
    ax.spines[["top", "right"]].set_visible(False)
    return ax
