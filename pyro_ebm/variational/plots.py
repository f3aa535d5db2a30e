"""Pictures of autoencoders; matplotlib is imported when one is drawn."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from _ppl_ebm.autoencoders import check_data_shape
from _ppl_ebm.checks import check_count
from _ppl_ebm.plots import (
    check_labels,
    check_latent,
    check_start,
    check_traversal,
    draw_images,
    draw_latent,
    image_shape_of,
)
from pyro_ebm.diagnostics.fields import to_numpy
from pyro_ebm.sampling.types import ArrayLike
from pyro_ebm.variational.cvae import CVAE
from pyro_ebm.variational.networks import evaluates
from pyro_ebm.variational.posterior import Data, check_model, data_of
from pyro_ebm.variational.vae import VAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@evaluates
@torch.no_grad()
def plot_reconstructions(
    vae: VAE | CVAE,
    data: Data,
    image_shape: tuple[int, int] | None = None,
    *,
    num_draws: int = 3,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw images over what the autoencoder makes of them: E[x | z] at the mean of q(z | x), then at draws from it.

    :param vae: a :class:`VAE` or :class:`CVAE`.
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``. One column for each.
    :param image_shape: height and width of one datum; ``None`` where that is its shape.
    :param num_draws: rows of draws from torch's generator, not negative.
    :param ax: matplotlib axes to draw in; ``None`` makes a figure.
    :return: the matplotlib axes.
    :raises TypeError: for a ``vae`` that is neither, or data that do not suit it.
    :raises ValueError: for a shape that data do not have, or a negative ``num_draws``.
    :raises ImportError: if matplotlib is not installed.

    >>> import torch
    >>> from pyro_ebm.variational import VAE, plot_reconstructions
    >>> vae = VAE(torch.nn.Linear(16, 4), torch.nn.Linear(2, 16), 2, likelihood=0.1)
    >>> axes = plot_reconstructions(vae, torch.zeros(5, 16), (4, 4))
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['data', 'mean', 'draw 1', 'draw 2', 'draw 3']
    """
    check_model("plot_reconstructions", vae)
    check_count("num_draws", num_draws)
    x, condition = data_of(vae, data)
    shape = image_shape_of(image_shape, x.shape[1:])
    posterior = vae.latent_given_data(x, condition)
    latents = [posterior.mean]
    latents += posterior.sample((num_draws,)).unbind() if num_draws else []
    decoded = [_decoded(vae, z, condition) for z in latents]
    check_data_shape(x.shape, decoded[0].shape[1:])
    rows = [to_numpy(x), *decoded]
    labels = ["data", "mean", *(f"draw {index + 1}" for index in range(num_draws))]
    images = np.stack(rows).reshape(len(rows), len(x), *shape)
    return draw_images(ax, "plot_reconstructions", images, labels)


@evaluates
@torch.no_grad()
def plot_traversal(
    vae: VAE | CVAE,
    image_shape: tuple[int, int] | None = None,
    *,
    start: ArrayLike | None = None,
    condition: ArrayLike | None = None,
    span: float = 2.5,
    num_points: int = 9,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw E[x | z] along each latent dimension, one row for each, the others staying where they are.

    :param vae: a :class:`VAE` or :class:`CVAE`.
    :param image_shape: height and width of one datum; ``None`` where that is its shape.
    :param start: z that is moved, shape ``(latent_size,)``, for example a posterior mean; ``None``: 0.
    :param condition: of a :class:`CVAE`, one, without a batch dimension.
    :param span: from ``start - span`` to ``start + span``, positive.
    :param num_points: columns.
    :param ax: matplotlib axes to draw in; ``None`` makes a figure.
    :return: the matplotlib axes.
    :raises TypeError: for a ``vae`` that is neither, or a condition where there is none, or none where there is one.
    :raises ValueError: for a shape that does not fit, or numbers out of range.
    :raises ImportError: if matplotlib is not installed.

    >>> import torch
    >>> from pyro_ebm.variational import VAE, plot_traversal
    >>> vae = VAE(torch.nn.Linear(16, 4), torch.nn.Linear(2, 16), 2, likelihood=0.1)
    >>> [label.get_text() for label in plot_traversal(vae, (4, 4)).get_yticklabels()]
    ['z[0]', 'z[1]']
    """
    check_model("plot_traversal", vae)
    check_traversal(span, num_points, condition, isinstance(vae, CVAE))
    size = vae.latent_size
    like = next(vae.parameters(), torch.empty(0))
    origin = like.new_zeros(size) if start is None else torch.as_tensor(start, dtype=like.dtype, device=like.device)
    check_start(origin.shape, size)
    offsets = torch.linspace(-span, span, num_points).to(origin)
    z = origin + torch.eye(size).to(origin)[:, None] * offsets[:, None]
    if condition is not None:
        tensor = torch.as_tensor(condition, device=like.device)
        condition = tensor.expand(num_points, *tensor.shape)
    images = _decoded(vae, z, condition)
    images = images.reshape(size, num_points, *image_shape_of(image_shape, images.shape[2:]))
    return draw_images(ax, "plot_traversal", images, [f"z[{index}]" for index in range(size)])


@evaluates
@torch.no_grad()
def plot_latent(
    vae: VAE,
    data: torch.Tensor,
    *,
    labels: npt.ArrayLike | None = None,
    num_draws: int = 2000,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the aggregated posterior over the prior: a draw of z for each datum, and draws from the prior in grey.

    More than two latent dimensions are projected on the first two principal components of the data's draws.

    :param vae: a :class:`VAE` of at least two latent dimensions.
    :param data: shape ``(N, *event_shape)``.
    :param labels: of the data, shape ``(N,)``, for their colours.
    :param num_draws: from the prior; draws come from torch's generator.
    :param ax: matplotlib axes to draw in; ``None`` makes a figure.
    :return: the matplotlib axes.
    :raises TypeError: for a ``vae`` that is no :class:`VAE`.
    :raises ValueError: for a single latent dimension, labels of another shape, or a ``num_draws`` that is not positive.
    :raises ImportError: if matplotlib is not installed.

    >>> import torch
    >>> from pyro_ebm.variational import VAE, plot_latent
    >>> vae = VAE(torch.nn.Linear(16, 4), torch.nn.Linear(2, 16), 2, likelihood=0.1)
    >>> axes = plot_latent(vae, torch.randn(5, 16))
    >>> axes.get_xlabel()
    '$z_1$'
    """
    if not isinstance(vae, VAE):
        raise TypeError(f"vae: plot_latent expected a VAE, got {type(vae).__name__}")
    check_latent(vae.latent_size, num_draws)
    x, _ = data_of(vae, data)
    check_labels(labels, len(x))
    drawn, others = vae.latent_given_data(x).sample(), vae.latent_prior().sample((num_draws,))
    return draw_latent(ax, to_numpy(drawn), to_numpy(others), labels)


def _decoded(vae: VAE | CVAE, z: torch.Tensor, condition: torch.Tensor | None) -> np.ndarray:
    """The mean of p(x | z), or of p(x | z, c)."""
    return to_numpy(vae.data_given_latent(z, condition).mean)
