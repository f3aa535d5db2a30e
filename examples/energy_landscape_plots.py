"""The picture of ``energy_landscape.py``: a column for each model, with its landscape, asymmetry and draws."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

INK, DATA, DRAWS = "#1b2a41", "#c9ced6", "#d1495b"
FLOOR = 1e-6  # asymmetries below this are rounding
SAMPLES_SHOWN = 1000


class Panel(NamedTuple):
    """A column of the picture: ``draw_landscape(ax)`` fills the first row."""

    title: str
    draw_landscape: Callable[[Any], Any]
    asymmetry: np.ndarray
    draws: np.ndarray
    field_note: str
    draws_note: str


def save(path: pathlib.Path, panels: list[Panel], data: np.ndarray, bounds: tuple[float, float], caption: str) -> None:
    """Draw the picture and write it as PNG."""
    figure = Figure(figsize=(2.9 * len(panels) + 1.0, 10.2), dpi=130, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.05, wspace=0.0, hspace=0.0)
    figure.supxlabel(caption, fontsize=12, color=INK)
    axes = figure.subplots(3, len(panels), sharex=True, sharey=True)
    for panel, column in zip(panels, axes.T, strict=True):
        panel.draw_landscape(column[0])
        _draw_asymmetry(column[1], panel, data, bounds)
        _draw_draws(column[2], panel, data)
        column[0].set_title(panel.title, fontsize=14, color=INK, pad=8)
    _finish(figure, axes, bounds)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.1)


def _draw_asymmetry(ax: Any, panel: Panel, data: np.ndarray, bounds: tuple[float, float]) -> None:
    ax.imshow(
        np.maximum(panel.asymmetry, FLOOR),
        norm=LogNorm(FLOOR, 1),
        cmap="magma",
        origin="lower",
        extent=(*bounds, *bounds),
        interpolation="bilinear",
    )
    ax.scatter(*data[::4].T, s=1.5, color="white", alpha=0.5, linewidths=0)
    ax.set_xlabel(panel.field_note, fontsize=12, color=INK)


def _draw_draws(ax: Any, panel: Panel, data: np.ndarray) -> None:
    ax.scatter(*data.T, s=16, color=DATA, linewidths=0, label="held-out data")
    ax.scatter(*panel.draws[:SAMPLES_SHOWN].T, s=3.5, color=DRAWS, linewidths=0, alpha=0.8, label="HMC draws")
    ax.set_xlabel(panel.draws_note, fontsize=12, color=INK)


def _finish(figure: Any, axes: Any, bounds: tuple[float, float]) -> None:
    """Common scales, colour bars and legends instead of one for each panel."""
    contours = [_take_colorbar(ax) for ax in axes[0]]
    for ax in axes.flat:
        ax.set(xlim=bounds, ylim=bounds, aspect="equal", xticks=[], yticks=[], ylabel="")
        ax.spines[:].set_color("#8d96a3")
        ax.spines[:].set_visible(True)
    for ax in axes[0]:
        ax.set_xlabel("")
    for ax, label in zip(axes[:, 0], ("field, energy, fixed points", "asymmetry", "draws and data"), strict=True):
        ax.set_ylabel(label, fontsize=13, color=INK)
    bar = {"aspect": 25, "pad": 0.005, "fraction": 0.03, "shrink": 0.92}
    figure.colorbar(contours[-1], ax=axes[0], label="energy above its minimum", **bar)
    figure.colorbar(axes[1, -1].images[0], ax=axes[1], label=r"$|J-J^\top|^2\, /\, 4|J|^2$", **bar)
    _add_legends(figure, axes)


def _take_colorbar(ax: Any) -> Any:
    """Remove the colour bar and the legend that :func:`plot_field` added; what the colours mean stays."""
    (filled,) = (collection for collection in ax.collections if collection.colorbar is not None)
    filled.colorbar.remove()
    if ax.get_legend() is not None:
        ax.get_legend().remove()
    for markers in ax.get_legend_handles_labels()[0]:
        markers.set(sizes=0.45 * markers.get_sizes(), linewidths=0.8)
    return filled


def _add_legends(figure: Any, axes: Any) -> None:
    found = dict(pair[::-1] for ax in axes[0] for pair in zip(*ax.get_legend_handles_labels(), strict=True))
    kinds = [kind for kind in ("sink", "saddle", "source", "degenerate") if kind in found]
    handles, labels = axes[2, 0].get_legend_handles_labels()
    handles, labels = [*(found[kind] for kind in kinds), *handles], [*kinds, *labels]
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=12, markerscale=1.6
    )
