"""Fixed points of a reconstruction and what the field does around them: an autoencoder remembers its sinks."""

from typing import TypeAlias

import numpy as np
import torch
from torch.distributions import Distribution

from _ppl_ebm.checks import check_positive, check_positive_int
from _ppl_ebm.equilibria import FixedPoints, locate
from _ppl_ebm.fields import Reconstructs, check_starts, check_unbatched
from pyro_ebm.diagnostics.fields import Function, as_function, as_points, check_graph, jacobian, output_type, reference
from pyro_ebm.distributions.batching import pullback
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling.types import ArrayLike

Reconstruction: TypeAlias = Function | Reconstructs[torch.Tensor]


@torch.no_grad()
def fixed_points(
    reconstruct: Reconstruction, starts: ArrayLike, *, num_steps: int = 500, tolerance: float = 1e-5
) -> FixedPoints[torch.Tensor]:
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
    search = lambda points: _search(function, starts.new_tensor(points), num_steps, tolerance)
    found = locate(search, ends.numpy(force=True), starts.numpy(force=True), tolerance)
    eigenvalues = torch.tensor(found.eigenvalues, device=starts.device)
    return FixedPoints(starts.new_tensor(found.points), found.kinds, eigenvalues, found.num_dropped)


def _resolve(reconstruct: Reconstruction, starts: ArrayLike) -> tuple[Function, torch.Tensor]:
    if isinstance(reconstruct, EnergyDistribution):
        reconstruct = reconstruct.frozen()  # without checks of where a search may go
    function = as_function(reconstruct, "reconstruct", ("reconstruct",))
    if isinstance(reconstruct, Distribution):
        check_unbatched("reconstruct", reconstruct.batch_shape)
    starts = as_points("starts", starts, reference(reconstruct).device).detach()
    check_starts(starts.shape, bool(torch.isfinite(starts).all()))
    starts = starts.reshape(-1, starts.shape[-1])
    starts = starts.to(output_type("reconstruct", function, starts)[0])
    check_graph("reconstruct", function, starts, pullback(function, starts, False)[0])
    return function, starts


def _iterate(function: Function, points: torch.Tensor, num_steps: int, tolerance: float) -> torch.Tensor:
    """Ends of ``x <- r(x)``, which starts again where it leaves the finite numbers."""
    ends = points
    for _ in range(num_steps):
        old, ends = ends, function(ends)
        ends = torch.where(torch.isfinite(ends).all(-1, keepdim=True), ends, points)
        if not (_norm(ends - old) > tolerance).any():
            break
    return ends


def _search(
    function: Function, points: torch.Tensor, num_steps: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
