"""Vector fields of energies and autoencoders: how much they spread, and whether they are gradients.

A *field* is a function of values ``(..., D)`` to vectors ``(..., D)``, with the Jacobian ``J[i, j] = dF_i / dx_j``. It
may be given as a function or ``torch.nn.Module`` of a batch, or as any object with a method ``field`` (autoencoders)
or, without one, ``score`` (energies). Results carry gradients where ``value`` or the field's parameters ask for them;
under ``torch.no_grad`` they carry none. A field is called once more than its derivatives need, to see its shape.
"""

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch.distributions import Distribution

from _ppl_ebm.fields import (
    HasField,
    HasScore,
    check_continuous_vectors,
    check_output_like,
    check_points,
    circle,
    function_of,
    is_exact,
)
from pyro_ebm.distributions.batching import in_function_transform, pullback
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling.types import ArrayLike

Function: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Field: TypeAlias = Function | HasField[torch.Tensor] | HasScore[torch.Tensor]


def divergence(field: Field, value: ArrayLike, *, estimator: str = "exact", num_probes: int = 1) -> torch.Tensor:
    r"""Divergence of a field, :math:`\mathrm{tr}\, J(v)`.

    ``"exact"`` takes D vector-Jacobian products; ``"hutchinson"`` averages the unbiased ``e' J e`` over Rademacher
    vectors ``e`` (Hutchinson 1990), one product each.

    :param field: see the module: a function, a module, or an object with ``field`` or ``score``.
    :param value: shape ``(..., D)``.
    :param estimator: ``"exact"`` or ``"hutchinson"``.
    :param num_probes: vectors per value for ``"hutchinson"``.
    :return: shape ``(...)``.
    :raises TypeError: for a ``field`` that is none, or a ``value`` that is not floating point.
    :raises ValueError: for an unknown ``estimator``, ``num_probes`` below one, or a field that does not return the
        shape of its values or that autograd cannot follow.

    >>> import torch
    >>> from pyro_ebm.diagnostics.fields import divergence
    >>> print(divergence(lambda v: v**2, torch.tensor([1.0, 3.0])))
    tensor(8.)
    """
    exact = is_exact("divergence", estimator, num_probes)
    function, value, needs_graph = resolve(field, value)
    pull, _ = _linearise(function, value, needs_graph)
    if exact:
        terms = [(pull(unit.expand_as(value)) * unit).sum(-1) for unit in _units(value)]
        return _finish(torch.stack(terms).sum(0), needs_graph)
    terms = [(probe * pull(probe)).sum(-1) for probe in _probes(num_probes, value)]
    return _finish(torch.stack(terms).mean(0), needs_graph)


def asymmetry(field: Field, value: ArrayLike, *, estimator: str = "exact", num_probes: int = 1) -> torch.Tensor:
    r"""Asymmetry of a field's Jacobian, :math:`\|J - J'\|_F^2 / (4 \|J\|_F^2)`: 0 if symmetric, 1 if antisymmetric.

    A field on all of R^D is the gradient of a potential iff this is 0 everywhere (Kamyshanska & Memisevic 2013 for
    autoencoders). A zero Jacobian counts as symmetric.

    ``"hutchinson"`` needs no Jacobian: :math:`E|Je - J'e|^2 / (4 E|Je|^2)` over Rademacher vectors ``e``, from one jvp
    and one vjp each (Chao et al. 2023), where :math:`E|Je|^2 = E|J'e|^2` is estimated by the mean of both. The
    estimate lies in [0, 1]; its numerator and denominator are unbiased, and so their ratio is for many probes. It is
    differentiable in the field's parameters, and a penalty for non-conservative fields.

    :param field: see the module: a function, a module, or an object with ``field`` or ``score``.
    :param value: shape ``(..., D)``.
    :param estimator: ``"exact"`` or ``"hutchinson"``.
    :param num_probes: vectors per value for ``"hutchinson"``.
    :return: shape ``(...)``.
    :raises TypeError: for a ``field`` that is none, or a ``value`` that is not floating point.
    :raises ValueError: for an unknown ``estimator``, ``num_probes`` below one, or a field that does not return the
        shape of its values or that autograd cannot follow.

    >>> import torch
    >>> from pyro_ebm.diagnostics.fields import asymmetry
    >>> shear = lambda v: torch.stack([v[..., 1], 0 * v[..., 0]], -1)
    >>> print(asymmetry(shear, torch.tensor([1.0, 3.0])))
    tensor(0.5000)
    """
    exact = is_exact("asymmetry", estimator, num_probes)
    function, value, needs_graph = resolve(field, value)
    if exact:
        matrix = jacobian(function, value, needs_graph)
        return _finish(_ratio(_squares(matrix - matrix.mT, 2), 4 * _squares(matrix, 2)), needs_graph)
    pull, push = _linearise(function, value, True)
    difference, total = torch.zeros_like(value[..., 0]), torch.zeros_like(value[..., 0])
    for probe in _probes(num_probes, value):
        forward, backward = _finish(push(probe), needs_graph), _finish(pull(probe), needs_graph)
        difference = difference + _squares(forward - backward, 1)
        total = total + 2 * (_squares(forward, 1) + _squares(backward, 1))
    return _ratio(difference, total)


def circulation(
    field: Field, value: ArrayLike, *, radius: float = 0.1, plane: ArrayLike = (0, 1), num_nodes: int = 64
) -> torch.Tensor:
    r"""Circulation of a field, :math:`\oint F \cdot dl` around a circle about each value.

    The circle runs from the first direction of ``plane`` to the second, so that for a small radius this is
    :math:`\pi r^2 (\partial_1 F_2 - \partial_2 F_1)`, exactly so for a linear field. A gradient has none. The
    trapezoid rule converges geometrically in ``num_nodes`` for smooth fields; derivatives are not needed.

    :param field: see the module: a function, a module, or an object with ``field`` or ``score``.
    :param value: centres, shape ``(..., D)``.
    :param radius: radius of the circle.
    :param plane: two coordinate axes, or two orthonormal directions of shape ``(D,)``.
    :param num_nodes: points on the circle, at least 3.
    :return: shape ``(...)``.
    :raises TypeError: for a ``field`` that is none, or a ``value`` that is not floating point.
    :raises ValueError: for a ``radius`` that is not positive, axes that are equal or out of range, directions that are
        not orthonormal, fewer than 3 nodes, or a field that does not return the shape of its values.

    >>> import torch
    >>> from pyro_ebm.diagnostics.fields import circulation
    >>> rotation = lambda v: torch.stack([-v[..., 1], v[..., 0]], -1)
    >>> print(f"{circulation(rotation, torch.tensor([1.0, 3.0]), radius=0.5):.4f}")  # area 0.7854 times curl 2
    1.5708
    """
    function, value, _ = resolve(field, value)
    array = np.stack(circle(to_numpy(plane), value.shape[-1], radius, num_nodes))
    vectors = torch.as_tensor(array, dtype=value.dtype, device=value.device)
    outward, along = vectors.reshape(2, num_nodes, *(1,) * (value.dim() - 1), value.shape[-1])
    flow = function(value + radius * outward)
    return 2 * math.pi * radius / num_nodes * (flow * along).sum((0, -1))


def resolve(field: Field, value: ArrayLike) -> tuple[Function, torch.Tensor, bool]:
    """``field`` as a function, ``value`` as a tensor of its type over its batch, and whether to keep graphs."""
    function = as_function(field, "field", ("field", "score"))
    value = as_points("value", value, reference(field).device)
    value = value.expand(*torch.broadcast_shapes(value.shape[:-1], _batch_shape(field)), value.shape[-1])
    dtype, has_graph = output_type("field", function, value)
    needs_graph = torch.is_grad_enabled() and (value.requires_grad or has_graph)
    return function, value.to(dtype), needs_graph or in_function_transform()


def as_function(field: object, name: str, methods: tuple[str, ...]) -> Function:
    """A function of batches: the first of ``methods`` that the class of ``field`` has, else ``field`` itself."""
    function = function_of(name, field, methods, is_distribution=isinstance(field, Distribution))
    if isinstance(field, Distribution):
        is_discrete = field.support is not None and field.support.is_discrete
        check_continuous_vectors(name, type(field).__name__, field.event_shape, is_discrete)
    return function


def reference(field: object, *tensors: object) -> torch.Tensor:
    """A tensor of the type and device that a field expects, as far as it or ``tensors`` tell."""
    owner = getattr(field, "__self__", field)
    if isinstance(owner, EnergyDistribution):
        return torch.empty(0, dtype=owner.dtype, device=owner.device)
    inside = [*owner.parameters(), *owner.buffers()] if isinstance(owner, torch.nn.Module) else []
    known = (tensor for tensor in (*inside, *tensors) if isinstance(tensor, torch.Tensor))
    return next((tensor for tensor in known if tensor.is_floating_point()), torch.empty(0))


def as_points(name: str, value: ArrayLike, device: torch.device | None = None) -> torch.Tensor:
    """``value`` as a floating-point tensor of shape ``(..., D)``.

    :param device: where to put what is no tensor yet.
    """
    try:
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected values of shape (..., D), got {type(value).__name__}") from error
    check_points(name, tensor.shape, tensor.dtype, tensor.is_floating_point())
    return tensor


def to_numpy(value: ArrayLike) -> np.ndarray:
    """``value``, on whatever device and with whatever graph, as a NumPy array."""
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else np.asarray(value)


def output_type(name: str, function: Function, value: torch.Tensor) -> tuple[torch.dtype, bool]:
    """Type of ``function(value)`` and whether it has a graph, refusing any other shape than that of ``value``."""
    output = function(value.detach())
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"{name}: expected a function that returns a tensor, got {type(output).__name__}")
    check_output_like(name, value.shape, output.shape, output.dtype, output.is_floating_point())
    return output.dtype, output.requires_grad


def check_graph(name: str, function: Function, value: torch.Tensor, output: torch.Tensor) -> None:
    """Refuse a function that autograd does not see depend on its value, though it does."""
    if in_function_transform() or output.requires_grad:
        return
    if not torch.equal(function(value.detach() + 1), output):
        raise ValueError(
            f"{name}: expected a function that autograd can follow, got an output without a graph; is there a "
            "torch.no_grad() or detach() in it?"
        )


def jacobian(function: Function, value: torch.Tensor, create_graph: bool = False) -> torch.Tensor:
    """``J[..., i, j] = dF_i / dx_j`` at each value, shape ``(..., D, D)``."""
    pull, _ = _linearise(function, value, create_graph)
    return torch.stack([pull(unit.expand_as(value)) for unit in _units(value)], -2)


def _linearise(function: Function, value: torch.Tensor, create_graph: bool) -> tuple[Function, Function]:
    """The products ``u -> J'u`` and ``v -> J v``, the second for ``create_graph`` only."""
    output, pull = pullback(function, value, create_graph)
    check_graph("field", function, value, output)
    # J v is the transpose of u -> J'u, which reverse mode gives too; the field need not support forward mode.
    return pull, lambda tangent: pullback(pull, torch.zeros_like(output), True)[1](tangent)


def _finish(result: torch.Tensor, needs_graph: bool) -> torch.Tensor:
    return result if needs_graph else result.detach()


def _batch_shape(field: Field) -> torch.Size:
    return field.batch_shape if isinstance(field, Distribution) else torch.Size()


def _units(value: torch.Tensor) -> torch.Tensor:
    return torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)


def _probes(num_probes: int, value: torch.Tensor) -> Iterator[torch.Tensor]:
    for _ in range(num_probes):
        yield torch.randint(0, 2, value.shape, device=value.device).to(value.dtype) * 2 - 1


def _squares(tensor: torch.Tensor, core: int) -> torch.Tensor:
    return (tensor**2).sum(tuple(range(-core, 0)))


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """``part / whole``, and 0 where ``whole`` is 0."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)
