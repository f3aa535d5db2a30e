"""One host distribution over a vector whose parts have different distributions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from numpyro_ebm.sampling.types import Key, PyTree


class Concatenated(dist.Distribution):
    """Independent distributions over vectors, side by side in one vector.

    :param parts: distributions of one event dimension each and of the same batch shape.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_ebm.distributions.parts.concatenated import Concatenated
    >>> parts = dist.Gamma(jnp.ones(2)).to_event(1), dist.Bernoulli(0.5 * jnp.ones(3)).to_event(1)
    >>> Concatenated(*parts).sample(jax.random.key(0)).shape
    (5,)
    """

    pytree_data_fields = ("parts",)

    def __init__(self, *parts: dist.Distribution) -> None:
        self.parts = parts
        size = sum(part.event_shape[0] for part in parts)
        super().__init__(lax.broadcast_shapes(*(part.batch_shape for part in parts)), (size,), validate_args=False)

    @property
    def support(self) -> Any:
        supports = [part.support.base_constraint for part in self.parts]
        lengths = [part.event_shape[0] for part in self.parts]
        return constraints.independent(constraints.cat(supports, -1, lengths), 1)

    def _split(self, value: jax.Array) -> list[jax.Array]:
        ends = np.cumsum([part.event_shape[0] for part in self.parts])[:-1]
        return jnp.split(value, ends, axis=-1)

    def sample(self, key: Key | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        assert key is not None
        keys = jax.random.split(key, len(self.parts))
        draws = [part.sample(key, sample_shape) for part, key in zip(self.parts, keys, strict=True)]
        dtype = jnp.result_type(*draws)
        return jnp.concatenate([draw.astype(dtype) for draw in draws], axis=-1)

    def log_prob(self, value: ArrayLike, intermediates: PyTree = None) -> jax.Array:
        del intermediates
        terms = [
            part.log_prob(values) for part, values in zip(self.parts, self._split(jnp.asarray(value)), strict=True)
        ]
        return functools.reduce(jnp.add, terms)

    @property
    def mean(self) -> jax.Array:
        return jnp.concatenate([part.mean for part in self.parts], axis=-1)

    @property
    def variance(self) -> jax.Array:
        return jnp.concatenate([part.variance for part in self.parts], axis=-1)
