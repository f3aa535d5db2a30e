"""Pictures of autoencoders; matplotlib is imported when one is drawn."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from numpyro_ebm.infer.checks import check_count, check_positive, check_positive_int
from numpyro_ebm.infer.keys import require_key
from numpyro_ebm.variational.cvae import CVAE
from numpyro_ebm.variational.normal import draw, loc_and_scale
from numpyro_ebm.variational.posterior import check_model, data_of
from numpyro_ebm.variational.vae import VAE

_GAP = 1


def plot_reconstructions(
    vae: Any,
    data: Any,
    image_shape: tuple[int, int] | None = None,
    num_draws: int = 3,
    *,
    rng_key: Any = None,
    ax: Any = None,
) -> Any:
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
    check_model("plot_reconstructions", vae)
    check_count("num_draws", num_draws)
    x, condition = data_of(vae, data)
    shape = _image_shape(image_shape, x.shape[1:])
    posterior: Any = vae._encode(x, condition)
    latents: list[Any] = [posterior.mean]
    if num_draws:
        key = require_key("plot_reconstructions", rng_key)
        latents += list(draw(key, num_draws, *loc_and_scale(posterior)))
    rows = [np.asarray(x), *(_decoded(vae, z, condition) for z in latents)]
    labels = ["data", "mean", *(f"draw {index + 1}" for index in range(num_draws))]
    return _mosaic(ax, np.stack(rows).reshape(len(rows), len(x), *shape), labels)


def plot_traversal(
    vae: Any,
    image_shape: tuple[int, int] | None = None,
    start: Any = None,
    condition: Any = None,
    span: float = 2.5,
    num_points: int = 9,
    *,
    ax: Any = None,
) -> Any:
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
    check_model("plot_traversal", vae)
    check_positive("span", span)
    check_positive_int("num_points", num_points)
    if isinstance(vae, CVAE) == (condition is None):
        raise TypeError(f"condition: expected one for a CVAE and none for a VAE, got {condition!r}")
    size = vae.latent_size
    origin = jnp.zeros(size) if start is None else jnp.asarray(start)
    if origin.shape != (size,):
        raise ValueError(f"start: expected shape ({size},), got {origin.shape}")
    offsets = jnp.linspace(-span, span, num_points)
    z = origin[None, None] + jnp.eye(size)[:, None] * offsets[None, :, None]
    if condition is not None:
        array = jnp.asarray(condition)
        condition = jnp.broadcast_to(array, (num_points, *array.shape))
    images = _decoded(vae, z, condition)
    shape = _image_shape(image_shape, images.shape[2:])
    return _mosaic(ax, images.reshape(size, num_points, *shape), [f"z[{index}]" for index in range(size)])


def plot_latent(
    vae: VAE, data: Any, labels: Any = None, num_draws: int = 2000, *, rng_key: Any = None, ax: Any = None
) -> Any:
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
    if vae.latent_size < 2:
        raise ValueError("vae: plot_latent expected at least two latent dimensions, got 1")
    check_positive_int("num_draws", num_draws)
    x, _ = data_of(vae, data)
    if labels is not None and np.shape(labels) != (len(x),):
        raise ValueError(f"labels: expected shape ({len(x)},), got {np.shape(labels)}")
    keys = jax.random.split(require_key("plot_latent", rng_key), 3)
    with handlers.seed(rng_seed=keys[0]):
        prior = vae._prior()
    aggregated = np.asarray(vae._encode(x).sample(keys[1]))
    others = np.asarray(prior.sample(keys[2], (num_draws,)))
    title = "$z_{}$"
    if vae.latent_size > 2:
        centre = aggregated.mean(0)
        directions = np.linalg.svd(aggregated - centre, full_matrices=False)[2][:2].T
        aggregated, others = (aggregated - centre) @ directions, (others - centre) @ directions
        title = "principal component {} of z"
    ax = _new_axes((5.4, 5.0)) if ax is None else ax
    prior_dots = ax.scatter(*others.T, s=4, color="0.8", linewidths=0)
    dots = ax.scatter(*aggregated.T, s=6, c=labels, cmap="tab10" if labels is not None else None, linewidths=0)
    handles, names = ([dots], ["q(z)"]) if labels is None else dots.legend_elements()
    legend = [prior_dots, *handles], ["prior", *names]
    ax.legend(*legend, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handletextpad=0.1)
    ax.set(xlabel=title.format(1), ylabel=title.format(2), aspect="equal")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _decoded(vae: Any, z: jax.Array, condition: Any) -> np.ndarray:
    return np.asarray(vae._decode(z, condition).mean)


def _image_shape(image_shape: Any, event_shape: tuple[int, ...]) -> tuple[int, int]:
    shape = tuple(event_shape if image_shape is None else image_shape)
    if len(shape) != 2 or int(np.prod(shape)) != int(np.prod(event_shape)):
        raise ValueError(
            f"image_shape: expected a height and a width for data of shape {tuple(event_shape)}, got {image_shape!r}"
        )
    return shape[0], shape[1]


def _mosaic(ax: Any, images: np.ndarray, labels: list[str]) -> Any:
    """Rows of grey images of shape ``(rows, columns, height, width)``, dark where values are high."""
    rows, columns, height, width = images.shape
    ax = _new_axes((0.3 + 0.5 * columns, 0.5 * rows)) if ax is None else ax
    padded = np.pad(images, ((0, 0), (0, 0), (0, _GAP), (0, _GAP)), constant_values=np.nan)
    picture = padded.transpose(0, 2, 1, 3).reshape(rows * (height + _GAP), columns * (width + _GAP))
    low, high = min(0.0, images.min()), max(1.0, images.max())
    ax.imshow(np.ma.masked_invalid(picture), cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
    ax.set_yticks((height + _GAP) * np.arange(rows) + 0.5 * (height - 1), labels)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _new_axes(size: tuple[float, float]) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            'plots of autoencoders need matplotlib; install it with: pip install "ppl-ebm[examples]"'
        ) from error
    return pyplot.subplots(figsize=size, layout="constrained")[1]
