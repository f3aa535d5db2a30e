"""Pictures of autoencoders; matplotlib is imported when one is drawn."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from numpyro import handlers

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
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.types import Key
from numpyro_ebm.variational.cvae import CVAE
from numpyro_ebm.variational.normal import draw, loc_and_scale
from numpyro_ebm.variational.posterior import Data, data_of, evaluated
from numpyro_ebm.variational.vae import VAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_reconstructions(
    vae: VAE | CVAE,
    data: Data,
    image_shape: tuple[int, int] | None = None,
    *,
    num_draws: int = 3,
    rng_key: Key | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw images over what the autoencoder makes of them: E[x | z] at the mean of q(z | x), then at draws from it.

    :param vae: a :class:`VAE` or :class:`CVAE`, with learned parameters (``with_parameters``).
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``. One column for each.
    :param image_shape: height and width of one datum; ``None`` where that is its shape.
    :param num_draws: rows of draws, not negative.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :param ax: matplotlib axes to draw in; ``None`` makes a figure.
    :return: the matplotlib axes.
    :raises TypeError: for a ``vae`` that is neither, or data that do not suit it.
    :raises ValueError: for a shape that data do not have, a negative ``num_draws`` or a missing key.
    :raises ImportError: if matplotlib is not installed.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, plot_reconstructions
    >>> vae = VAE(lambda x: x[:4], lambda z: jnp.tile(z, 8), 2, likelihood=0.1)
    >>> axes = plot_reconstructions(vae, jnp.zeros((5, 16)), (4, 4), rng_key=jax.random.key(0))
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['data', 'mean', 'draw 1', 'draw 2', 'draw 3']
    """
    vae = evaluated("plot_reconstructions", vae)
    check_count("num_draws", num_draws)
    x, condition = data_of(vae, data)
    shape = image_shape_of(image_shape, x.shape[1:])
    posterior = vae.latent_given_data(x, condition)
    latents = [posterior.mean]
    if num_draws:
        key = require_key("plot_reconstructions", rng_key)
        latents += [*draw(key, num_draws, *loc_and_scale(posterior))]
    decoded = [_decoded(vae, z, condition) for z in latents]
    check_data_shape(x.shape, decoded[0].shape[1:])
    rows = [np.asarray(x), *decoded]
    labels = ["data", "mean", *(f"draw {index + 1}" for index in range(num_draws))]
    images = np.stack(rows).reshape(len(rows), len(x), *shape)
    return draw_images(ax, "plot_reconstructions", images, labels)


def plot_traversal(
    vae: VAE | CVAE,
    image_shape: tuple[int, int] | None = None,
    *,
    start: npt.ArrayLike | None = None,
    condition: ArrayLike | None = None,
    span: float = 2.5,
    num_points: int = 9,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw E[x | z] along each latent dimension, one row for each, the others staying where they are.

    :param vae: a :class:`VAE` or :class:`CVAE`, with learned parameters (``with_parameters``).
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

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, plot_traversal
    >>> vae = VAE(lambda x: x[:4], lambda z: jnp.tile(z, 8), 2, likelihood=0.1)
    >>> [label.get_text() for label in plot_traversal(vae, (4, 4)).get_yticklabels()]
    ['z[0]', 'z[1]']
    """
    vae = evaluated("plot_traversal", vae)
    check_traversal(span, num_points, condition, isinstance(vae, CVAE))
    size = vae.latent_size
    origin = jnp.zeros(size) if start is None else jnp.asarray(start)
    check_start(origin.shape, size)
    offsets = jnp.linspace(-span, span, num_points)
    z = origin[None, None] + jnp.eye(size)[:, None] * offsets[None, :, None]
    if condition is not None:
        array = jnp.asarray(condition)
        condition = jnp.broadcast_to(array, (num_points, *array.shape))
    images = _decoded(vae, z, condition)
    images = images.reshape(size, num_points, *image_shape_of(image_shape, images.shape[2:]))
    return draw_images(ax, "plot_traversal", images, [f"z[{index}]" for index in range(size)])


def plot_latent(
    vae: VAE,
    data: ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    num_draws: int = 2000,
    rng_key: Key | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the aggregated posterior over the prior: a draw of z for each datum, and draws from the prior in grey.

    More than two latent dimensions are projected on the first two principal components of the data's draws.

    :param vae: a :class:`VAE` of at least two latent dimensions, with learned parameters (``with_parameters``).
    :param data: shape ``(N, *event_shape)``.
    :param labels: of the data, shape ``(N,)``, for their colours.
    :param num_draws: from the prior.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :param ax: matplotlib axes to draw in; ``None`` makes a figure.
    :return: the matplotlib axes.
    :raises TypeError: for a ``vae`` that is no :class:`VAE`.
    :raises ValueError: for a single latent dimension, labels of another shape, a ``num_draws`` that is not positive, or
        a missing key.
    :raises ImportError: if matplotlib is not installed.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, plot_latent
    >>> vae = VAE(lambda x: x[:4], lambda z: jnp.tile(z, 8), 2, likelihood=0.1)
    >>> axes = plot_latent(vae, jnp.zeros((5, 16)), rng_key=jax.random.key(0))
    >>> axes.get_xlabel()
    '$z_1$'
    """
    if not isinstance(vae, VAE):
        raise TypeError(f"vae: plot_latent expected a VAE, got {type(vae).__name__}")
    vae = evaluated("plot_latent", vae)
    check_latent(vae.latent_size, num_draws)
    x, _ = data_of(vae, data)
    check_labels(labels, len(x))
    keys = jax.random.split(require_key("plot_latent", rng_key), 3)
    with handlers.seed(rng_seed=keys[0]):
        prior = vae.latent_prior()
    drawn, others = vae.latent_given_data(x).sample(keys[1]), prior.sample(keys[2], (num_draws,))
    return draw_latent(ax, np.asarray(drawn), np.asarray(others), labels)


def _decoded(vae: VAE | CVAE, z: jax.Array, condition: jax.Array | None) -> np.ndarray:
    """The mean of p(x | z), or of p(x | z, c)."""
    return np.asarray(vae.data_given_latent(z, condition).mean)
