"""Pictures of ``vae_digits.py``: every ``draw_*`` fills a figure or a part of one; digits are rows of 784 pixels."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import colormaps
from matplotlib.figure import Figure

COLOURS = colormaps["tab10"]
SIDE, GAP = 28, 1
MASSES = (0.95, 0.75, 0.5, 0.25)


class Plane(NamedTuple):
    """A 2-D model: draws from q(z | x) of digits with labels, draws from the prior and the prior's density."""

    title: str
    latent: np.ndarray
    labels: np.ndarray
    prior: np.ndarray
    density: Callable[[np.ndarray], np.ndarray]


class Parts(NamedTuple):
    """What is in the main picture."""

    draw_reconstructions: Callable[[Any], None]
    originals: np.ndarray
    decodings: np.ndarray
    samples: dict[str, np.ndarray]
    planes: list[Plane]


def save(path: pathlib.Path, size: tuple[float, float], draw: Callable[..., None], *args: Any) -> None:
    """Draw a whole picture and write it as PNG."""
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    draw(figure, *args)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.08)


def draw_summary(figure: Any, parts: Parts) -> None:
    """Reconstructions, ten decodings, prior samples and latent spaces in one picture."""
    upper, lower = figure.subfigures(2, 1, height_ratios=(6.3, 5))
    (reconstructions, decodings), squares = upper.subplots(2, 2, height_ratios=(2.8, 3.2))
    parts.draw_reconstructions(reconstructions)
    reconstructions.set_anchor("N")
    reconstructions.set_title("Held-out digits and their reconstructions, 8-D, N(0, I)", fontsize=11)
    draw_decodings(decodings, parts.originals, parts.decodings)
    for axis, (name, samples) in zip(squares, parts.samples.items(), strict=True):
        draw_samples(axis, name, samples)
    draw_planes(lower, parts.planes)


def draw_decodings(axis: Any, originals: np.ndarray, decodings: np.ndarray) -> None:
    """Digits, each before a row of what its draws of z are decoded to; decodings of shape (digits, draws, pixels)."""
    left = np.pad(mosaic(originals, 1), ((0, 0), (0, SIDE // 2)))
    show(axis, np.concatenate([left, mosaic(decodings, decodings.shape[1])], axis=1))
    axis.axvline(SIDE + SIDE // 4, color="0.6", linewidth=1)
    axis.set_title(f"One input (left) and {decodings.shape[1]} decodings of draws from q(z | x)", fontsize=11)


def draw_samples(axis: Any, name: str, samples: np.ndarray) -> None:
    """Six rows of digits."""
    show(axis, mosaic(samples, len(samples) // 6))
    axis.set_title(f"Prior samples, decoded: {name}", fontsize=11)


def draw_planes(figure: Any, planes: list[Plane]) -> None:
    """Aggregated posteriors side by side, over regions that hold shares of the prior's mass."""
    axes = figure.subplots(1, len(planes))
    for axis, plane in zip(axes, planes, strict=True):
        draw_plane(axis, plane)
    handles = [
        matplotlib.lines.Line2D([], [], marker="o", linestyle="", color=COLOURS(label), label=str(label))
        for label in range(10)
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, title="digit", handletextpad=0.1)


def draw_plane(axis: Any, plane: Plane) -> None:
    """One aggregated posterior over its prior."""
    both = np.concatenate([plane.latent, plane.prior])
    low, high = np.quantile(both, (0.001, 0.999), axis=0)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 200).T), -1)
    density = plane.density(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    levels = [*np.quantile(plane.density(plane.prior), 1 - np.array(MASSES)), density.max() * 1.01]
    axis.contourf(*np.moveaxis(grid, -1, 0), density, levels, colors=["0.93", "0.86", "0.79", "0.72"])
    order = np.random.default_rng(0).permutation(len(plane.latent))
    axis.scatter(*plane.latent[order].T, s=5, c=COLOURS(plane.labels[order]), linewidths=0, alpha=0.7)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="$z_1$", ylabel="$z_2$")
    axis.set_title(f"{plane.title}: draws from q(z) in colour, the prior in grey", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)


def draw_details(figure: Any, draw_traversal: Callable[[Any], None], draw_latent: Callable[[Any], None]) -> None:
    """Decodings along each latent dimension beside the projected latent space."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    draw_traversal(left)
    left.set_title("A three, moved by -2.5 to 2.5 along each latent dimension", fontsize=11)
    draw_latent(right)
    right.set_title("8 latent variables of held-out digits; the prior in grey", fontsize=11)


def mosaic(images: np.ndarray, columns: int) -> np.ndarray:
    """Images side by side, row after row."""
    tiles = np.pad(images.reshape(-1, columns, SIDE, SIDE), ((0, 0), (0, 0), (0, GAP), (0, GAP)))
    return np.concatenate(np.concatenate(tiles, axis=1), axis=1)


def show(axis: Any, picture: np.ndarray) -> None:
    """A grey picture, dark where values are high."""
    axis.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axis.set_axis_off()
    axis.set_anchor("N")
