"""Score matching: fits the gradient of the log-density, which needs no partition function."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro.util import not_jax_tracer

from _ppl_ebm.repeats import MAX_ROWS, warn_of_repeats
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.objectives.criterion import Criterion
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.types import Key


class ScoreMatching(Criterion):
    r"""Score matching, :math:`\tfrac12 \|s(v)\|^2 + \mathrm{tr}\, \nabla s(v)` per datum (Hyvarinen 2005, eq. 4).

    The trace is the distribution's analytic ``laplacian`` (``"exact"``) or an unbiased estimate ``e' (grad s) e`` from
    one Rademacher vector per datum (``"hutchinson"``; the probe of sliced score matching, Song et al. 2019).

    Data with a constant or discrete column have no density there, and where the model can narrow the criterion falls
    without bound. ``log_prob`` and ``gradient`` warn of it and name the columns, where rows ``i`` and ``i + n // 2`` of
    the first 256, of 50 at least, agree in a twentieth of the pairs. Traced data (under ``jit``, so in ``SVI``) cannot
    be looked at, and with validation off none are: call ``log_prob`` once outside.

    :param base: a continuous energy distribution.
    :param estimator: ``"exact"`` or ``"hutchinson"``.
    :param rng_key: a JAX PRNG key for ``"hutchinson"``; ``None`` draws one from the seeded model around it.
    :raises TypeError: if ``base`` is discrete (binary data have no score) or its score has jumps.
    :raises ValueError: for an unknown ``estimator``, or a missing key.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import GaussianRBM
    >>> from numpyro_ebm.objectives import ScoreMatching
    >>> print(ScoreMatching(GaussianRBM(jnp.zeros((2, 1)))).log_prob(jnp.array([1.0, 1.0])))
    1.0
    """

    pytree_data_fields = ("rng_key",)
    pytree_aux_fields = ("estimator",)

    def __init__(self, base: EnergyDistribution, *, estimator: str = "exact", rng_key: Key | None = None) -> None:
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
        self.rng_key = require_key("ScoreMatching", rng_key) if estimator == "hutchinson" else None

    def loss(self, value: ArrayLike) -> jax.Array:
        score = self.base.score(value)
        if self._validate_args and not_jax_tracer(value):
            self._warn_of_repeats(value)
        axes = tuple(range(score.ndim - self.event_dim, score.ndim))
        trace = self.base.laplacian(value) if self.estimator == "exact" else self._probe(value, axes)
        return 0.5 * jnp.sum(score**2, axis=axes) + trace

    def _probe(self, value: ArrayLike, axes: tuple[int, ...]) -> jax.Array:
        value = self.base.check_value(value)
        probe = jax.random.rademacher(require_key("ScoreMatching", self.rng_key), value.shape, value.dtype)
        _, curvature = jax.jvp(self.base.score, (value,), (probe,))
        return jnp.sum(jnp.broadcast_to(probe, curvature.shape) * curvature, axis=axes)

    def _warn_of_repeats(self, value: ArrayLike) -> None:
        """Of data under one model, or one batch of models."""
        core = len(self.base.batch_shape) + self.event_dim
        if np.ndim(value) > core:
            with jax.ensure_compile_time_eval():
                rows = np.asarray(jnp.asarray(value)[:MAX_ROWS])
            warn_of_repeats("ScoreMatching", rows, core, stacklevel=4)
