"""The picture of ``cvae_inpainting.py``: digits are rows of 784 pixels."""

import pathlib
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

SIDE, CROP, GAP, GROUP_GAP = 28, 2, 2, 9
VISIBLE = LinearSegmentedColormap.from_list("visible", ["#ffffff", "#1a1a1a"]).with_extremes(bad="#f2a93b")
FILLED = LinearSegmentedColormap.from_list("filled", ["#fdebc8", "#0b3c8c"])
PIXELS_PER_INCH = 32


def draw(
    path: pathlib.Path, digits: np.ndarray, seen: np.ndarray, completions: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """One row for each digit: itself, what is seen of it, and for each prior some completions and the average of all.

    :param seen: NaN where hidden.
    :param completions: from the name of a prior to completions, shape (number, digits, 784), and the average.
    """
    hidden = np.isnan(seen)
    groups = [("digit", VISIBLE(digits)[None]), ("input", VISIBLE(seen)[None])]
    for name, (drawn, average) in completions.items():
        groups += [(f"completions, {name}", filled(drawn, hidden)), ("average", filled(average[None], hidden))]
    pictures = [tiled(tiles) for _, tiles in groups]
    widths = [picture.shape[1] for picture in pictures]
    height, width = len(pictures[0]), sum(widths) + GROUP_GAP * (len(groups) - 1)
    figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=160, layout="constrained")
    figure.get_layout_engine().set(w_pad=0, h_pad=0, wspace=GROUP_GAP / np.mean(widths), hspace=0)
    for axis, picture, (name, _) in zip(
        figure.subplots(1, len(groups), width_ratios=widths), pictures, groups, strict=True
    ):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(name, fontsize=11)
        axis.set_axis_off()
    figure.savefig(path, bbox_inches="tight", pad_inches=0.08)


def filled(digits: np.ndarray, hidden: np.ndarray) -> Any:
    """Colours of completed digits, whose hidden pixels have ink and paper of their own."""
    return np.where(hidden[..., None], FILLED(digits), VISIBLE(digits))


def tiled(tiles: np.ndarray) -> np.ndarray:
    """One picture of tiles of shape (columns, rows, 784, 4), without their outermost pixels."""
    columns, rows = tiles.shape[:2]
    inside = slice(CROP, SIDE - CROP)
    tiles = tiles.reshape(columns, rows, SIDE, SIDE, 4)[:, :, inside, inside]
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=1.0)
    side = SIDE - 2 * CROP + GAP
    return tiles.transpose(1, 2, 0, 3, 4).reshape(rows * side, columns * side, 4)[:-GAP, :-GAP]
