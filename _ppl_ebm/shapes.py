"""Shapes and indices of parameters and values: how batch dimensions broadcast, and one message for every way not to."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
Array = TypeVar("Array", bound=Any)


def broadcast(shape: Sequence[int], other: Sequence[int]) -> Shape | None:
    """The common shape, or ``None``.

    >>> broadcast((4, 1), (3,)), broadcast((2,), (3,))
    ((4, 3), None)
    """
    if shape == other or not other:
        return tuple(shape)
    if not shape:
        return tuple(other)
    longer, shorter = (shape, other) if len(shape) >= len(other) else (other, shape)
    lead = len(longer) - len(shorter)
    joint = list(longer)
    for position, size in enumerate(shorter, lead):
        if joint[position] != size:
            if 1 not in (joint[position], size):
                return None
            joint[position] = size if joint[position] == 1 else joint[position]
    return tuple(joint)


def check_broadcast(name: str, shape: Sequence[int], batch_shape: Sequence[int]) -> Shape:
    """The joint batch shape, or an error that names the argument."""
    joint = broadcast(shape, batch_shape)
    if joint is None:
        raise ValueError(
            f"{name}: expected batch dimensions that broadcast with {tuple(batch_shape)}, got {tuple(shape)}"
        )
    return joint


def check_shape(
    name: str, shape: Sequence[int], dims: Sequence[str], sizes: dict[str, int], batch_shape: Sequence[int]
) -> Shape:
    """Bind the sizes of ``dims`` and return the joint batch shape."""
    split = max(0, len(shape) - len(dims))
    lead, core = shape[:split], shape[split:]
    fits = len(core) == len(dims) and all(
        sizes.setdefault(dim, int(size)) == size for dim, size in zip(dims, core, strict=True)
    )
    if not fits:
        expected = commas(f"{dim}={sizes[dim]}" if dim in sizes else dim for dim in dims)
        raise ValueError(f"{name}: expected shape (..., {expected}), got {tuple(shape)}")
    return check_broadcast(name, lead, batch_shape)


def check_expandable(batch_shape: Sequence[int], shape: Sequence[int]) -> None:
    """Refuse a shape that ``batch_shape`` does not expand to."""
    if broadcast(shape, batch_shape) != tuple(shape):
        raise ValueError(f"batch_shape: expected a shape that {tuple(batch_shape)} expands to, got {tuple(shape)}")


def shared_axis(lead: Sequence[int], models: Sequence[int]) -> int | None:
    """The last batch dimension, from the end, along which one value meets several models; ``None`` if there is none.

    :param lead: the leading dimensions of the values, before they are broadcast.
    :param models: the batch dimensions of the parameters.

    >>> shared_axis((5,), (2, 1)), shared_axis((5,), (5,)), shared_axis((2, 1), (2, 3))
    (-2, None, -1)
    """
    for axis in range(-1, -len(models) - 1, -1):
        if models[axis] > 1 and (-axis > len(lead) or lead[axis] == 1):
            return axis
    return None


def check_masked(owner: str, mask: Sequence[int], lead: Sequence[int], own: Sequence[int]) -> None:
    """Refuse a mask that counts a value several times, as one over the elements of a value does.

    :param owner: the distribution.
    :param lead: the leading dimensions of the values.
    :param own: the batch dimensions of the distribution without the mask.

    >>> check_masked("BernoulliRBM", (3,), (3,), ())
    >>> check_masked("BernoulliRBM", (4,), (), ())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: mask: expected one truth value for each value of BernoulliRBM, ...
    """
    padded = (1,) * (len(mask) - len(own)) + tuple(own)
    added = [size if before == 1 else 1 for size, before in zip(mask[::-1], padded[::-1], strict=False)]
    axis = shared_axis(lead, added[::-1])
    if axis is not None:
        raise ValueError(
            f"mask: expected one truth value for each value of {owner}, got a mask of shape {tuple(mask)} over values "
            f"of batch shape {tuple(lead)}, which would count the density of one of them {mask[axis]} times. A density "
            "has no part for a single element: for missing elements use condition(indices, values) of the known ones, "
            "or make the missing ones a latent site"
        )


def check_observed(site: str, lead: Sequence[int], batch_shape: Sequence[int]) -> None:
    """Refuse observed values that outnumber the elements of their distribution's batch.

    Each of those draws one fictitious value and counts one normaliser, which many data would share.

    :param lead: the leading dimensions of the values.
    """
    if broadcast(lead, batch_shape) != tuple(batch_shape):
        raise ValueError(
            f"model: Exchange expected a distribution for each datum at site {site!r}, got data of batch shape "
            f"{tuple(lead)} and a distribution of batch shape {tuple(batch_shape)}; put a plate around that site"
        )


def check_units(name: str, indices: npt.ArrayLike, num_units: int) -> np.ndarray:
    """Some but not all of the units, as distinct whole numbers."""
    array = np.asarray(indices)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise TypeError(
            f"{name}: expected a one-dimensional integer sequence, got dtype {array.dtype} and shape {array.shape}"
        )
    if (array.size and (array.min() < 0 or array.max() >= num_units)) or len(np.unique(array)) != array.size:
        raise ValueError(f"{name}: expected distinct units in 0..{num_units - 1}, got {array.tolist()}")
    if not 0 < array.size < num_units:
        raise ValueError(f"{name}: expected some but not all of {num_units} visible units, got {array.size}")
    return array


def commas(items: Iterable[object]) -> str:
    """Items in one line."""
    return ", ".join(str(item) for item in items)


def draws_by_model(shape: Sequence[int], own: Sequence[int]) -> tuple[int, Callable[[Array, Any], Array]]:
    """How many draws each model of a batch gives to draws of a shape, and how they are put there.

    :param shape: of all draws; it ends in the models' batch shape, in which some dimensions may be longer.
    :param own: the models' batch shape.
    :return: the number, and a function of the models' draws, shape ``(*own, number, size)``, and of the module that
        they are arrays of.

    >>> import numpy as np
    >>> number, arrange = draws_by_model((5, 4, 3), (4, 1))
    >>> number, arrange(np.zeros((4, 1, 15, 2)), np).shape
    (15, (5, 4, 3, 2))
    """
    sizes = (1,) * (len(shape) - len(own)) + tuple(own)
    order = sorted(range(len(shape)), key=lambda axis: sizes[axis] == 1)  # the models first
    free = [shape[axis] for axis in order if sizes[axis] == 1]

    def arrange(draws: Array, module: Any) -> Array:
        split = draws.reshape([shape[axis] for axis in order] + [draws.shape[-1]])
        return module.moveaxis(split, list(range(len(order))), order)

    return math.prod(free), arrange
