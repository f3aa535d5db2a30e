"""Fixed points of a reconstruction and what the field does around them: an autoencoder remembers its sinks."""

import copy
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.distributions import Distribution

from pyro_ebm.diagnostics.fields import (
    Function,
    as_function,
    as_points,
    check_graph,
    check_output,
    jacobian,
)
from pyro_ebm.distributions.tensors import pullback
from pyro_ebm.infer.checks import check_positive, check_positive_int

KINDS = ("sink", "saddle", "source", "degenerate")


class FixedPoints(NamedTuple):
    """Fixed points by kind, sinks first; see :func:`fixed_points`.

    ``points``
        shape ``(M, D)``.
    ``kinds``
        ``"sink"``, ``"saddle"``, ``"source"`` or ``"degenerate"`` for each.
    ``eigenvalues``
        of the field's Jacobian at each, complex, shape ``(M, D)``, in order of their real parts.
    ``num_dropped``
        how many of the starts led to no fixed point.

    >>> import torch
    >>> from pyro_ebm.diagnostics.equilibria import fixed_points
    >>> fixed_points(lambda x: x + 1, torch.zeros(5, 2)).num_dropped
    5
    """

    points: torch.Tensor
    kinds: tuple[str, ...]
    eigenvalues: torch.Tensor
    num_dropped: int


@torch.no_grad()
def fixed_points(reconstruct: Any, starts: Any, num_steps: int = 500, tolerance: float = 1e-5) -> FixedPoints:
    r"""Fixed points :math:`r(x) = x` of a reconstruction, told apart by the field :math:`F(x) = r(x) - x`.

    With the eigenvalues of ``J = dF/dx``, a point is a sink if all real parts are negative, a source if all are
    positive, else a saddle, and degenerate if one is 0 (to ``tolerance``).

    Iterating ``x <- r(x)`` finds the sinks (Kamyshanska & Memisevic 2013); Newton's method on ``F`` finds the others.
    It runs from the ends of these iterations, which it polishes, from the starts, and from half-way between sinks. It
    takes ``-(J'J + m I)^-1 J'F`` with ``m <= |F|^2`` (Levenberg 1944; Yamashita & Fukushima 2001), or the halving of it
    that makes ``|F|`` smallest. A point that no search was led to is missed: more starts find more.

    :param reconstruct: a function of ``(..., D)`` to the same shape, a module, or an object with a method
        ``reconstruct`` (autoencoders).
    :param starts: where to start, shape ``(..., D)``: data, or draws over the region of interest. Each costs the memory
        of a few D x D matrices.
    :param num_steps: the most steps of each search.
    :param tolerance: a point is fixed if ``|r(x) - x| <= tolerance (1 + |x|)``; nearer ones than that are one point.
        Degenerate points are only known to its square root. In float32, not below 1e-6.
    :raises TypeError: for a ``reconstruct`` that is none, or ``starts`` that are not floating point.
    :raises ValueError: for no or infinite ``starts``, a ``num_steps`` or ``tolerance`` that is not positive, a
        distribution with batch dimensions, or a reconstruction that does not return the shape of its values or that
        autograd cannot follow.

    >>> import torch
    >>> from pyro_ebm.diagnostics.equilibria import fixed_points
    >>> found = fixed_points(lambda x: torch.tanh(2 * x), torch.tensor([[-1.0], [0.5]]))
    >>> for point, kind in zip(found.points, found.kinds):
    ...     print(f"{point[0]:.3f} {kind}")
    -0.958 sink
    0.958 sink
    0.000 source
    """
    check_positive_int("num_steps", num_steps)
    check_positive("tolerance", tolerance)
    function, starts = _resolve(reconstruct, starts)
    ends = _iterate(function, starts, num_steps, tolerance)
    points, is_fixed, matrices = _search(function, torch.cat([ends, starts]), num_steps, tolerance)
    num_dropped = int(np.sum(~is_fixed.reshape(2, -1).any(0)))
    between = _midpoints(*_classify(points[is_fixed], matrices[is_fixed], tolerance)[:2], len(points))
    if len(between):
        more = _search(function, starts.new_tensor(between), num_steps, tolerance)
        points, is_fixed, matrices = map(np.concatenate, zip((points, is_fixed, matrices), more, strict=True))
    points, kinds, eigenvalues = _classify(points[is_fixed], matrices[is_fixed], tolerance)
    names = tuple(KINDS[kind] for kind in kinds)
    return FixedPoints(starts.new_tensor(points), names, torch.tensor(eigenvalues, device=starts.device), num_dropped)


def _resolve(reconstruct: Any, starts: Any) -> tuple[Function, torch.Tensor]:
    function = _unchecked(reconstruct)
    if isinstance(reconstruct, Distribution) and reconstruct.batch_shape:
        shape = tuple(reconstruct.batch_shape)
        raise ValueError(f"reconstruct: expected a distribution without batch dimensions, got batch shape {shape}")
    starts = as_points("starts", starts).detach()
    if not starts.numel() or not torch.isfinite(starts).all():
        raise ValueError(f"starts: expected at least one point, and finite ones, got shape {tuple(starts.shape)}")
    starts = starts.reshape(-1, starts.shape[-1])
    starts = starts.to(check_output("reconstruct", function, starts)[0])
    check_graph("reconstruct", function, starts, pullback(function, starts, False)[0])
    return function, starts


def _unchecked(reconstruct: Any) -> Function:
    """The reconstruction without checks of where a search may go."""
    if isinstance(reconstruct, Distribution):
        reconstruct = copy.copy(reconstruct)
        reconstruct._validate_args = False
    return as_function(reconstruct, "reconstruct", ("reconstruct",))


def _iterate(function: Function, points: torch.Tensor, num_steps: int, tolerance: float) -> torch.Tensor:
    """Ends of ``x <- r(x)``, which starts again where it leaves the finite numbers."""
    ends = points
    for _ in range(num_steps):
        old, ends = ends, function(ends)
        ends = torch.where(torch.isfinite(ends).all(-1, keepdim=True), ends, points)
        if not (_norm(ends - old) > tolerance).any():
            break
    return ends


def _search(function: Function, points: torch.Tensor, num_steps: int, tolerance: float) -> tuple[np.ndarray, ...]:
    """Ends of Newton's method on the field, whether each is a fixed point, and the field's Jacobian there."""
    field = lambda points: function(points) - points
    points = _newton(field, points, num_steps)
    is_fixed = _norm(field(points)) <= tolerance * (1 + _norm(points))
    return points.cpu().numpy(), is_fixed.cpu().numpy(), jacobian(field, points).cpu().numpy()


def _newton(field: Function, points: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Safeguarded Newton steps until one improves by less than a hundredth: to rounding, at a fixed point."""
    points, active = points.clone(), torch.arange(len(points), device=points.device)
    for _ in range(num_steps):
        points[active], improved = _newton_step(field, points[active])
        active = active[improved]
        if not len(active):
            break
    return points


def _newton_step(field: Function, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The best of a damped Newton step and its halves, and whether it is better than staying."""
    residual = field(points)
    fractions = 0.5 ** torch.arange(12, dtype=points.dtype, device=points.device)
    trials = points + fractions[:, None, None] * _newton_direction(field, points, residual)
    lowest, best = torch.nan_to_num(_norm(field(trials)), nan=torch.inf).min(0)
    improved = lowest < 0.99 * _norm(residual)
    chosen = trials[best, torch.arange(len(points), device=points.device)]
    return torch.where(improved[:, None], chosen, points), improved


def _newton_direction(field: Function, points: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    matrix = jacobian(field, points)
    damping = torch.minimum((residual**2).sum(-1), 1e-3 * (matrix**2).sum(-2).mean(-1))
    identity = torch.eye(points.shape[-1], dtype=points.dtype, device=points.device)
    normal = matrix.mT @ matrix + damping[:, None, None] * identity
    solution, _ = torch.linalg.solve_ex(normal, matrix.mT @ residual[..., None])
    return torch.where(torch.isfinite(solution), -solution, 0.0)[..., 0]


def _norm(vectors: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1)


def _classify(points: np.ndarray, matrices: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points that differ, their kinds (as positions in ``KINDS``, in order) and eigenvalues."""
    kept = _distinct(points, np.full(len(points), tolerance))
    points, eigenvalues = points[kept], np.linalg.eigvals(matrices[kept])
    eigenvalues = np.sort(eigenvalues.astype(np.result_type(points.dtype, np.complex64)), -1)
    kinds = np.array([_kind(row.real, tolerance) for row in eigenvalues], int)
    kept = _distinct(points, np.where(kinds == KINDS.index("degenerate"), math.sqrt(tolerance), tolerance))
    order = kept[np.argsort(kinds[kept], kind="stable")]
    return points[order], kinds[order], eigenvalues[order]


def _distinct(points: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Indices of points that lie farther than their radius, times one plus their length, from all before them."""
    kept: list[int] = []
    for index, (point, radius) in enumerate(zip(points, radii, strict=True)):
        distances = np.linalg.norm(points[kept] - point, axis=-1)
        if np.all(distances > radius * (1 + np.linalg.norm(point))):
            kept.append(index)
    return np.array(kept, int)


def _kind(rates: np.ndarray, tolerance: float) -> int:
    """Position in ``KINDS`` of a fixed point with these real parts."""
    if np.any(np.abs(rates) <= tolerance):
        return KINDS.index("degenerate")
    return KINDS.index("sink" if np.all(rates < 0) else "source" if np.all(rates > 0) else "saddle")


def _midpoints(points: np.ndarray, kinds: np.ndarray, count: int) -> np.ndarray:
    """Half-way points of the nearest pairs of sinks: ``count`` of them, with repeats, or none."""
    sinks = points[kinds == KINDS.index("sink")]
    pairs = sorted(itertools.combinations(sinks, 2), key=lambda pair: float(np.linalg.norm(pair[0] - pair[1])))
    middles = [(first + second) / 2 for first, second in pairs[:count]]
    return np.resize(middles, (count if pairs else 0, sinks.shape[-1])).astype(sinks.dtype)
