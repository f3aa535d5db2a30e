"""What may be a vector field, and the arguments of its diagnostics: all that needs no arrays of a backend."""

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from _ppl_ebm.checks import check_choice, check_positive, check_positive_int

Array = TypeVar("Array")


class HasField(Protocol[Array]):
    """An object with a vector field, as autoencoders are."""

    def field(self, value: Array, /) -> Array:
        """The field at values of shape ``(..., D)``, of the same shape."""


class HasScore(Protocol[Array]):
    """An object with the gradient of a log-density, as energies are."""

    def score(self, value: Array, /) -> Array:
        """The gradient at values of shape ``(..., D)``, of the same shape."""


class HasEnergy(Protocol[Array]):
    """An object with an energy."""

    def energy(self, value: Array, /) -> Array:
        """A number for each of the values of shape ``(..., D)``."""


class Reconstructs(Protocol[Array]):
    """An object that maps values to what it makes of them, as autoencoders do."""

    def reconstruct(self, value: Array, /) -> Array:
        """Reconstructions of values of shape ``(..., D)``, of the same shape."""


def method_of(owner: object, *names: str) -> Callable[..., Any] | None:
    """The first of these methods that the class of ``owner`` defines, bound to it.

    An attribute of the instance is none: a network may keep a layer under any of these names.
    """
    found = (getattr(owner, name) for name in names if callable(getattr(type(owner), name, None)))
    return next(found, None)


def function_of(name: str, owner: object, methods: tuple[str, ...], *, is_distribution: bool) -> Callable[..., Any]:
    """The first of ``methods`` that ``owner`` has, else ``owner`` itself.

    :param name: what messages call it.
    :param is_distribution: whether it is a distribution of its host, which is callable and yet no function of values.

    >>> function_of("field", abs, ("field", "score"), is_distribution=False)(-1.0)
    1.0
    """
    method = method_of(owner, *methods)
    if method is not None:
        return method
    if is_distribution or not callable(owner):
        expected = " or ".join(f"`{method}`" for method in methods)
        raise TypeError(f"{name}: expected a function or an object with a method {expected}, got {owner!r}")
    return owner


def energy_of(field: object, energy: object) -> Callable[..., Any] | None:
    """The function of values that ``energy`` is or has, or where it is ``None`` that of ``field``, if it has one."""
    owner = field if energy is None else energy
    function = method_of(owner, "energy") or energy
    if function is not None and not callable(function):
        raise TypeError(f"energy: expected a function or an object with a method `energy`, got {energy!r}")
    return function


def check_continuous_vectors(name: str, owner: str, event_shape: tuple[int, ...], is_discrete: bool) -> None:
    """Refuse distributions without a vector field on R^D."""
    if len(event_shape) != 1:
        raise ValueError(f"{name}: expected a distribution of vectors, got event shape {tuple(event_shape)}")
    if is_discrete:
        raise TypeError(f"{name}: expected a continuous distribution, got {owner}, which has no score")


def check_unbatched(name: str, batch_shape: tuple[int, ...]) -> None:
    """Refuse a batch of distributions."""
    if batch_shape:
        raise ValueError(
            f"{name}: expected a distribution without batch dimensions, got batch shape {tuple(batch_shape)}"
        )


def check_points(name: str, shape: tuple[int, ...], dtype: object, is_floating: bool) -> None:
    """Refuse arrays that are no floating-point values of shape ``(..., D)``."""
    if not is_floating:
        raise TypeError(f"{name}: expected real floating-point values, got dtype {dtype}")
    if not shape or shape[-1] == 0:
        raise ValueError(f"{name}: expected shape (..., D), got {tuple(shape)}")


def check_starts(shape: tuple[int, ...], are_finite: bool) -> None:
    """Refuse starts of searches that are none, or not finite."""
    if not are_finite or 0 in shape:
        raise ValueError(f"starts: expected at least one point, and finite ones, got shape {tuple(shape)}")


def check_output_like(
    name: str, expected: tuple[int, ...], got: tuple[int, ...], dtype: object, is_floating: bool
) -> None:
    """Refuse outputs of a field that are no floating-point vectors of the shape of its values."""
    if tuple(got) != tuple(expected):
        raise ValueError(
            f"{name}: expected an output of shape {tuple(expected)} for values of that shape, got {tuple(got)}"
        )
    if not is_floating:
        raise TypeError(f"{name}: expected real floating-point outputs, got dtype {dtype}")


def is_exact(owner: str, estimator: str, num_probes: int) -> bool:
    """Whether the estimator is the exact one; refuses what is no estimator."""
    check_choice("estimator", owner, estimator, ("exact", "hutchinson"))
    check_positive_int("num_probes", num_probes)
    return estimator == "exact"


def circle(plane: ArrayLike, size: int, radius: float, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors outward and along a circle, each of shape ``(num_nodes, size)``.

    :param plane: two coordinate axes, or two orthonormal directions of shape ``(size,)``.
    :param radius: checked to be positive.
    :param num_nodes: points on the circle, at least 3.

    >>> outward, along = circle((0, 1), 2, 1.0, 4)
    >>> (outward.round() + 0).tolist(), (along.round() + 0).tolist()
    ([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], [[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
    """
    check_positive("radius", radius)
    check_positive_int("num_nodes", num_nodes)
    if num_nodes < 3:
        raise ValueError(f"num_nodes: expected at least 3 points on the circle, got {num_nodes}")
    directions = _directions(plane, size)
    angle = 2 * math.pi / num_nodes * np.arange(num_nodes)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([cosine, sine], -1) @ directions, np.stack([-sine, cosine], -1) @ directions


def _directions(plane: ArrayLike, size: int) -> np.ndarray:
    """Two orthonormal directions, shape ``(2, size)``."""
    array = np.asarray(plane)
    if array.shape == (2,) and np.issubdtype(array.dtype, np.integer):
        if array[0] == array[1] or not np.all((array >= 0) & (array < size)):
            raise ValueError(f"plane: expected two different axes from 0 to {size - 1}, got {plane!r}")
        array = np.eye(size)[array]
    if array.shape != (2, size) or not np.allclose(array @ array.T, np.eye(2), atol=1e-5):
        raise ValueError(f"plane: expected two axes or two orthonormal directions of shape ({size},), got {plane!r}")
    return array
