"""The restricted Boltzmann machine with Gaussian units."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.typing import ArrayLike

from _ppl_ebm.errors import ImproperDensityError
from _ppl_ebm.normals import LOG_2PI
from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.bipartite import RestrictedBoltzmannMachine, normal_units, sample_unit_normal
from numpyro_ebm.sampling.protocols import Sampler
from numpyro_ebm.sampling.types import Key


class GaussianRBM(RestrictedBoltzmannMachine):
    r"""Restricted Boltzmann machine with Gaussian visible and Gaussian hidden units of unit conditional variance.

    .. math::

        E(v, h) = \tfrac12 v^\top v + \tfrac12 h^\top h - v^\top W h - a^\top v - b^\top h

    The marginal is ``Normal((I - W W')^-1 (a + W b), (I - W W')^-1)``, probabilistic PCA with unit noise in other
    parameters (Williams & Agakov 2002). **Proper only while the spectral norm of W is below one**; anything else is
    refused at construction where the weights are not traced, and gives NaN densities where they are.

    :param weights: W, shape ``(..., visible, hidden)``, spectral norm below 1.
    :param visible_bias: a, the linear coefficient (not the mean), shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param log_partition: normaliser policy; ``"auto"`` is exact.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration; default ``Exact()``.
    :raises ImproperDensityError: if the spectral norm of ``weights`` is not below one.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import GaussianRBM
    >>> print(GaussianRBM(jnp.array([[0.6], [0.0]])).variance)
    [1.5625 1.    ]
    """

    def __init__(
        self,
        weights: ArrayLike,
        *,
        visible_bias: ArrayLike = 0.0,
        hidden_bias: ArrayLike = 0.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        parameters = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    @property
    def has_exact_partition(self) -> bool:
        return True

    def _check_proper(self) -> None:
        norm = np.max(np.linalg.norm(np.asarray(self.weights, float), ord=2, axis=(-2, -1)))
        if not norm < 1:
            raise ImproperDensityError(
                f"weights: GaussianRBM expected a spectral norm below 1, got {norm:.6g}: exp(-energy) has no integral"
            )

    def _joint_energy(self, value: jax.Array, hidden: jax.Array) -> jax.Array:
        quadratic = 0.5 * (value @ value + hidden @ hidden)
        return quadratic - value @ self.weights @ hidden - self.visible_bias @ value - self.hidden_bias @ hidden

    def _energy(self, value: jax.Array) -> jax.Array:
        hidden = self._hidden_input(value)
        return 0.5 * (value @ value - hidden @ hidden - self.num_hidden * LOG_2PI) - self.visible_bias @ value

    def _score(self, value: jax.Array) -> jax.Array:
        return self._visible_input(self._hidden_input(value)) - value

    def _laplacian(self, value: jax.Array) -> jax.Array:
        return (self.weights**2).sum() - self.event_shape[0]

    def _hidden_distribution(self, inputs: jax.Array) -> dist.Distribution:
        return normal_units(inputs)

    def _sample_hidden(self, rng_key: Key, inputs: jax.Array) -> jax.Array:
        return sample_unit_normal(rng_key, inputs)

    def _visible_units(self, inputs: jax.Array) -> dist.Distribution:
        return normal_units(inputs)

    def _sample_visible(self, rng_key: Key, inputs: jax.Array) -> jax.Array:
        return sample_unit_normal(rng_key, inputs)

    def _cholesky(self) -> jax.Array:
        """Lower Cholesky factor of ``I - W'W``; by Woodbury, ``(I - WW')^-1 = I + W (I - W'W)^-1 W'``."""
        return jnp.linalg.cholesky(jnp.eye(self.num_hidden, dtype=self.dtype) - self.weights.T @ self.weights)

    def _exact_mean(self) -> jax.Array:
        linear = self._visible_input(self.hidden_bias)
        return linear + self.weights @ cho_solve((self._cholesky(), True), self.weights.T @ linear)

    def _exact_log_partition(self) -> jax.Array:
        units = self.event_shape[0] + self.num_hidden
        log_det = 2 * jnp.log(jnp.diagonal(self._cholesky())).sum()
        linear = self._visible_input(self.hidden_bias)
        return 0.5 * (units * LOG_2PI - log_det + linear @ self._exact_mean() + self.hidden_bias @ self.hidden_bias)

    def _base_log_partition(self) -> jax.Array:
        units = self.event_shape[0] + self.num_hidden
        return 0.5 * (units * LOG_2PI + self.visible_bias @ self.visible_bias)

    def _exact_covariance(self) -> jax.Array:
        root = solve_triangular(self._cholesky(), self.weights.T, lower=True)
        return jnp.eye(self.event_shape[0], dtype=self.dtype) + root.T @ root

    def exact_sample(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        key_hidden, key_visible = jax.random.split(rng_key)
        noise = jax.random.normal(key_hidden, (*shape, self.num_hidden), self.dtype)
        return self._sample_visible(key_visible, self._map(type(self)._correlate, noise))

    def _correlate(self, noise: jax.Array) -> jax.Array:
        shifted = solve_triangular(self._cholesky(), noise, lower=True, trans=1)
        return self._exact_mean() + self.weights @ shifted
