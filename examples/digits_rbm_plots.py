"""Pictures of ``digits_rbm.py``: every ``draw_*`` fills a figure or a part of one; digits are rows of 196 pixels."""

import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import colormaps
from matplotlib.figure import Figure

INK = colormaps["gray_r"].with_extremes(bad="#f2c14e")
UNCERTAINTY = colormaps["magma"]
FILTER = colormaps["RdBu_r"]
SIDE, GAP = 14, 1


class Row(NamedTuple):
    """One row of a picture: its label, its digits, and how grey levels become colours."""

    label: str
    digits: np.ndarray
    colours: Any = INK
    low: float = 0.0
    high: float = 1.0


def save(path: pathlib.Path, size: tuple[float, float], draw: Callable[..., None], *args: Any) -> None:
    """Draw a whole picture and write it as PNG."""
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    draw(figure, *args)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.08)


def draw_fantasies(figure: Any, digits: np.ndarray, num_sweeps: int) -> None:
    """A square of digits."""
    side = math.isqrt(len(digits))
    title = f"Fantasies: E[v | h] after {num_sweeps:,} Gibbs sweeps from noise"
    _show(figure, title, [Row("", digits[start : start + side]) for start in range(0, side**2, side)])


def draw_filters(figure: Any, filters: np.ndarray) -> None:
    """A square of the rows of ``filters``, each on its own symmetrical colour scale."""
    side = math.isqrt(len(filters))
    filters = filters / np.abs(filters).max(1, keepdims=True)
    rows = [Row("", filters[start : start + side], FILTER, -1.0, 1.0) for start in range(0, side**2, side)]
    _show(figure, f"Weights of the {side**2} most used hidden units (red: more ink)", rows)


def draw_denoising(
    figure: Any, clean: np.ndarray, noisy: np.ndarray, wiener: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> None:
    """Digits, what was observed of them, and what two priors make of it."""
    rows = [
        Row("clean", clean),
        Row("observed", noisy),
        Row("Gaussian prior", wiener),
        Row("RBM prior", mean),
        Row("posterior sd", deviation, UNCERTAINTY, high=float(deviation.max())),
    ]
    _show(figure, "Denoising: v ~ RBM, y ~ Normal(v, 0.4)", rows)


def draw_inpainting(figure: Any, clean: np.ndarray, masked: np.ndarray, draws: np.ndarray) -> None:
    """Digits, their known half, posterior draws of shape (draws, digits, pixels), mean and standard deviation."""
    deviation = draws.std(0)
    rows = [
        Row("clean", clean),
        Row("observed", masked),
        *(Row(f"draw {index + 1}", draw) for index, draw in enumerate(draws[:: max(1, len(draws) // 3)][:3])),
        Row("posterior mean", draws.mean(0)),
        Row("posterior sd", deviation, UNCERTAINTY, high=float(deviation.max())),
    ]
    _show(figure, "Inpainting: lower half ~ RBM given the upper half", rows)


def draw_traces(figure: Any, names: list[str], traces: np.ndarray, reference: np.ndarray) -> None:
    """NUTS chains of a few pixels, shape (pixels, chains, draws), beside their histograms and those of Gibbs draws."""
    axes = figure.subplots(len(names), 2, squeeze=False, width_ratios=(3, 1))
    for (left, right), name, chains, draws in zip(axes, names, traces, reference, strict=True):
        bins = np.histogram_bin_edges(np.concatenate([chains.ravel(), draws]), 40)
        left.plot(chains.T, linewidth=0.5)
        left.set_ylabel(name)
        left.set_ylim(bins[0], bins[-1])
        left.margins(x=0)
        right.hist(chains.ravel(), bins, density=True, orientation="horizontal", alpha=0.6, label="NUTS")
        right.hist(draws, bins, density=True, orientation="horizontal", histtype="step", color="black", label="Gibbs")
        right.set_ylim(bins[0], bins[-1])
        right.set_xticks([])
        right.set_yticks([])
    axes[0, 0].set_title(
        "NUTS, one colour per chain: the most uncertain pixel of three images, and the pixel of largest R-hat"
    )
    axes[-1, 0].set_xlabel("draw")
    axes[0, 1].legend(fontsize="small", frameon=False)


def draw_summary(
    figure: Any, fantasies: tuple[Any, ...], denoising: tuple[Any, ...], inpainting: tuple[Any, ...]
) -> None:
    """Fantasies, denoising and inpainting in one picture."""
    left, right = figure.subfigures(1, 2, width_ratios=(1, 0.93))
    upper, lower = right.subfigures(2, 1, height_ratios=(5.15, 7))
    draw_fantasies(left, *fantasies)
    draw_denoising(upper, *denoising)
    draw_inpainting(lower, *inpainting)


def _show(figure: Any, title: str, rows: list[Row]) -> None:
    axes = figure.subplots()
    axes.imshow(np.concatenate([_strip(row) for row in rows]), interpolation="nearest")
    axes.set_title(title, fontsize=11)
    centres = [(SIDE + GAP) * index + SIDE / 2 for index in range(len(rows))]
    axes.set_yticks(centres if rows[0].label else [], [row.label for row in rows] if rows[0].label else [])
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _strip(row: Row) -> np.ndarray:
    """One row as an image with margins, shape (SIDE + GAP, width, 4)."""
    images = np.ma.masked_invalid((row.digits - row.low) / (row.high - row.low)).reshape(-1, SIDE, SIDE)
    colours = row.colours(images)
    return np.concatenate(np.pad(colours, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=1.0), axis=1)
