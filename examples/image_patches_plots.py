"""Pictures of ``image_patches.py``: every ``draw_*`` fills a figure; filters and patches are rows of pixels."""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib.figure import Figure


def save(path: pathlib.Path, size: tuple[float, float], draw: Callable[..., None], *args: Any) -> None:
    """Draw a whole picture and write it as PNG."""
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    draw(figure, *args)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.08)


def draw_filters(figure: Any, maps: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Covariance filters at their places on the map beside mean filters, one row for each family."""
    axes = figure.subplots(len(maps), 2, squeeze=False, width_ratios=(3, 2))
    for (left, right), (family, covariance, mean) in zip(axes, maps, strict=True):
        show(left, covariance, f"{family}: covariance filters (neighbours are pooled)")
        show(right, mean, f"{family}: mean filters")


def draw_samples(figure: Any, draws: dict[str, np.ndarray]) -> None:
    """Squares of patches, all on one scale of grey."""
    axes = figure.subplots(2, 2).ravel()
    for axis, (title, patches) in zip(axes, draws.items(), strict=True):
        show(axis, patches, title, scale=3.0)


def draw_gabors(
    figure: Any, fits: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]], shares: dict[str, Any]
) -> None:
    """Filters from the best to the worst matched above their Gabor functions, and all energy shares as curves."""
    *axes, last = figure.subplots(len(fits) + 1, 1, height_ratios=[1.1] * len(fits) + [2])
    for axis, (family, filters, gabors, matched) in zip(axes, fits, strict=True):
        chosen = np.argsort(-matched)[:: max(1, len(filters) // 18)][:18]
        title = f"{family}: filters from best to worst matched (above), and the Gabor function of each (below)"
        show(axis, np.concatenate([filters[chosen], gabors[chosen]]), title, columns=len(chosen))
    for name, values in shares.items():
        last.plot(np.linspace(0, 100, len(values)), np.sort(values)[::-1], label=name)
    last.set_xlabel("% of the filters")
    last.set_ylabel("energy share of the best Gabor")
    last.set_ylim(0, 1)
    last.margins(x=0)
    last.legend(frameon=False)


def show(axis: Any, images: np.ndarray, title: str, scale: float | None = None, columns: int | None = None) -> None:
    """A grid of square images with mean grey in the middle, each on a scale of its own unless ``scale`` is given."""
    side, columns = math.isqrt(images.shape[1]), columns or math.isqrt(len(images))
    limits = np.abs(images).max(1, keepdims=True) if scale is None else scale
    tiles = (images[: len(images) // columns * columns] / limits).reshape(-1, columns, side, side)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=1.0)
    grid = np.concatenate(np.concatenate(tiles, axis=1), axis=1)
    axis.imshow(np.pad(grid, ((0, 1), (0, 1)), constant_values=1.0), cmap="gray", vmin=-1, vmax=1)
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()
