"""Score matching: fits the gradient of the log-density, which needs no partition function."""

import torch

from _ppl_ebm.repeats import MAX_ROWS, warn_of_repeats
from pyro_ebm.distributions.batching import is_concrete, pullback
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.objectives.criterion import Criterion
from pyro_ebm.sampling.steps import sum_event
from pyro_ebm.sampling.types import ArrayLike


class ScoreMatching(Criterion):
    r"""Score matching, :math:`\tfrac12 \|s(v)\|^2 + \mathrm{tr}\, \nabla s(v)` per datum (Hyvarinen 2005, eq. 4).

    The trace is the distribution's analytic ``laplacian`` (``"exact"``) or an unbiased estimate ``e' (grad s) e`` from
    one Rademacher vector per datum (``"hutchinson"``; the probe of sliced score matching, Song et al. 2019).

    Data with a constant or discrete column have no density there, and where the model can narrow the criterion falls
    without bound. ``log_prob`` and ``gradient`` warn of it and name the columns, where rows ``i`` and ``i + n // 2`` of
    the first 256, of 50 at least, agree in a twentieth of the pairs. Traced data (``torch.func``, ``torch.jit``) cannot
    be looked at, and with validation off none are.

    :param base: a continuous energy distribution.
    :param estimator: ``"exact"`` or ``"hutchinson"``.
    :raises TypeError: if ``base`` is discrete (binary data have no score) or its score has jumps.
    :raises ValueError: for an unknown ``estimator``.

    >>> import torch
    >>> from pyro_ebm import GaussianRBM
    >>> from pyro_ebm.objectives import ScoreMatching
    >>> print(ScoreMatching(GaussianRBM(torch.zeros(2, 1))).log_prob(torch.tensor([1.0, 1.0])))
    tensor(1.)
    """

    def __init__(self, base: EnergyDistribution, *, estimator: str = "exact") -> None:
        if estimator not in ("exact", "hutchinson"):
            raise ValueError(f'estimator: ScoreMatching expected "exact" or "hutchinson", got {estimator!r}')
        super().__init__(base)
        if base.is_discrete:
            raise TypeError(
                f"base: ScoreMatching expected a continuous distribution, got {type(base).__name__}, whose values have "
                "no score; use PseudoLikelihood or a contrastive criterion"
            )
        if not base.has_continuous_score:
            raise TypeError(
                f"base: ScoreMatching expected a continuous score, got a {type(base).__name__} whose activation jumps: "
                "the trace of its Jacobian misses the jumps"
            )
        self.estimator = estimator

    def loss(self, value: ArrayLike) -> torch.Tensor:
        points = self.base.check_value(value)
        if self._validate_args and is_concrete(points):
            self._warn_of_repeats(torch.as_tensor(value))
        trace = self.base.laplacian(points) if self.estimator == "exact" else self._probe(points)
        return 0.5 * sum_event(self.base.score(points) ** 2, len(self.event_shape)) + trace

    def _probe(self, value: torch.Tensor) -> torch.Tensor:
        """``e' H e`` from one reverse pass, H being symmetric."""
        probe = torch.randint(0, 2, value.shape, device=value.device).to(value.dtype) * 2 - 1
        _, product = pullback(self.base.score, value, self.base.needs_graph(value))
        return sum_event(probe * product(probe), len(self.event_shape))

    def _warn_of_repeats(self, value: torch.Tensor) -> None:
        """Of data under one model, or one batch of models."""
        core = len(self.base.batch_shape) + self.event_dim
        if value.dim() > core:
            rows = value[:MAX_ROWS].detach().cpu()
            rows = rows.float() if rows.element_size() == 2 else rows  # NumPy has no bfloat16
            warn_of_repeats("ScoreMatching", rows.numpy(), core, stacklevel=4)
