"""Likelihoods of autoencoders: from a decoder's raw outputs to a host distribution over data.

Each has ``distribution(raw, num_batch, name)``, where ``raw`` is the decoder's output, an array of shape ``batch
dimensions + (...)`` or several, ``num_batch`` the number of its batch dimensions, and ``name`` the prefix of parameter
sites; and ``check(x)``, which refuses data (not traced) that have no density under it. ``VAE`` makes them of short
names, numbers and functions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

from _ppl_ebm.checks import check_positive


class Bernoulli:
    """Independent binary data in {0, 1}; the decoder gives logits.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational.likelihoods import Bernoulli
    >>> print(Bernoulli().distribution(jnp.zeros((3, 2)), 1, "vae").log_prob(jnp.ones((3, 2))).round(4))
    [-1.3863 -1.3863 -1.3863]
    """

    def distribution(self, raw: Any, num_batch: int, name: str) -> dist.Distribution:
        """Bernoulli units over the dimensions after the first ``num_batch``."""
        del name
        return _as_event(dist.Bernoulli(logits=_array(raw)), num_batch)

    def check(self, x: Any) -> None:
        """Refuse values other than 0 and 1."""
        if _fails(x, lambda a: (a == 0) | (a == 1)):
            raise ValueError(
                f'x: likelihood="bernoulli" expected zeros and ones, got values {_range(x)}; grey values have no '
                "density under it: binarise them (x > 0.5, or draws with probability x), or use "
                'likelihood="continuous_bernoulli"'
            )


class ContinuousBernoulli:
    """Independent data in [0, 1] under :class:`ContinuousBernoulliDistribution`; the decoder gives logits.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational.likelihoods import ContinuousBernoulli
    >>> print(ContinuousBernoulli().distribution(jnp.zeros((3, 2)), 1, "vae").log_prob(jnp.ones((3, 2))))
    [0. 0. 0.]
    """

    def distribution(self, raw: Any, num_batch: int, name: str) -> dist.Distribution:
        """Units over the dimensions after the first ``num_batch``."""
        del name
        return _as_event(ContinuousBernoulliDistribution(_array(raw)), num_batch)

    def check(self, x: Any) -> None:
        """Refuse values outside [0, 1]."""
        if _fails(x, lambda a: (a >= 0) & (a <= 1)):
            raise ValueError(
                f'x: likelihood="continuous_bernoulli" expected values from 0 to 1, got values {_range(x)}; rescale '
                'them, or use likelihood="normal"'
            )


class Normal:
    """Independent normal data with a fixed or a learned standard deviation.

    :param scale: the standard deviation of all entries, a positive number; ``None``: it is learned. Then the decoder
        returns either a pair, locations and log standard deviations, or the locations alone, beside which one standard
        deviation for all is learned: the parameter site ``<name>.scale``, starting at 1.
    :raises TypeError: for a ``scale`` that is no number.
    :raises ValueError: for one out of range; on use, for a pair of different shapes.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational.likelihoods import Normal
    >>> print(Normal(0.5).distribution(jnp.zeros((3, 2)), 1, "vae").log_prob(jnp.zeros((3, 2))).round(4))
    [-0.4516 -0.4516 -0.4516]
    """

    def __init__(self, scale: float | None = None) -> None:
        if scale is not None:
            check_positive("scale", scale)
        self.scale = scale

    def distribution(self, raw: Any, num_batch: int, name: str) -> dist.Distribution:
        """Normal units over the dimensions after the first ``num_batch``."""
        if self.scale is None and isinstance(raw, (tuple, list)):
            loc, log_scale = _pair(raw)
            return _as_event(dist.Normal(loc, jnp.exp(log_scale)), num_batch)
        raw, scale = _array(raw), self.scale
        if scale is None:
            start: Any = jnp.ones((), raw.dtype)
            scale = numpyro.param(f"{name}.scale", start, constraint=constraints.positive)  # type: ignore[assignment]
        return _as_event(dist.Normal(raw, jnp.broadcast_to(jnp.asarray(scale, raw.dtype), raw.shape)), num_batch)

    def check(self, x: Any) -> None:
        """Refuse values that are not finite."""
        if _fails(x, np.isfinite):
            raise ValueError("x: a normal likelihood expected finite values, got NaN or infinite ones")


class Custom:
    """Any host distribution, made by a function.

    :param function: maps the decoder's outputs, with all their batch dimensions, to a distribution.

    >>> import jax.numpy as jnp
    >>> import numpyro.distributions as dist
    >>> from numpyro_ebm.variational.likelihoods import Custom
    >>> Custom(lambda raw: dist.Poisson(jnp.exp(raw))).distribution(jnp.zeros((3, 2)), 1, "vae").event_shape
    (2,)
    """

    def __init__(self, function: Callable[[jax.Array], dist.Distribution]) -> None:
        self.function = function

    def distribution(self, raw: Any, num_batch: int, name: str) -> dist.Distribution:
        """The function's distribution, its dimensions after the first ``num_batch`` made event dimensions."""
        del name
        made = self.function(raw)
        if not isinstance(made, dist.Distribution):
            raise TypeError(f"likelihood: expected a function that returns a distribution, got {type(made).__name__}")
        lead = jax.tree.leaves(raw)[0].shape[:num_batch]
        if made.batch_shape[:num_batch] != lead:
            raise ValueError(
                f"likelihood: expected a distribution with the leading batch shape {lead}, got {made.batch_shape}"
            )
        return _as_event(made, num_batch)

    def check(self, x: Any) -> None:
        """The distribution itself validates its values."""


Likelihood = Bernoulli | ContinuousBernoulli | Normal | Custom
_NAMES: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "normal": Normal,
}


def resolve_likelihood(likelihood: Any) -> Likelihood:
    """The likelihood that a name, a positive number or a function stands for."""
    if isinstance(likelihood, str):
        if likelihood not in _NAMES:
            raise ValueError(f"likelihood: expected one of {', '.join(map(repr, _NAMES))}, got {likelihood!r}")
        return _NAMES[likelihood]()
    if callable(likelihood) and not isinstance(likelihood, type):
        return Custom(likelihood)
    if isinstance(likelihood, bool) or not isinstance(likelihood, (int, float)):
        raise TypeError(
            "likelihood: expected a name, a positive number (a standard deviation) or a function from the decoder's "
            f"outputs to a distribution, got {likelihood!r}"
        )
    check_positive("likelihood", likelihood)
    return Normal(float(likelihood))


def _fails(x: Any, holds: Callable[[np.ndarray], Any]) -> bool:
    """Whether any value of an array, unless it is traced, fails a test."""
    return bool(not_jax_tracer(x)) and not bool(np.all(holds(np.asarray(x))))


def _range(x: Any) -> str:
    return f"from {float(np.min(x)):g} to {float(np.max(x)):g}"


def _as_event(distribution: dist.Distribution, num_batch: int) -> dist.Distribution:
    return distribution.to_event(len(distribution.batch_shape) - num_batch)


def _pair(raw: Any) -> tuple[jax.Array, jax.Array]:
    if len(raw) != 2 or jnp.shape(raw[0]) != jnp.shape(raw[1]):
        raise ValueError(
            "decoder: a normal likelihood expected locations and log standard deviations of one shape, got shapes "
            f"{[jnp.shape(part) for part in raw]}"
        )
    return raw[0], raw[1]


def _array(raw: Any) -> jax.Array:
    if not isinstance(raw, jax.Array):
        raise TypeError(f"decoder: this likelihood expected one array of raw parameters, got {type(raw).__name__}")
    return raw


class ContinuousBernoulliDistribution(dist.Distribution):
    r"""The density on [0, 1] proportional to :math:`e^{\eta x}` (Loaiza-Ganem & Cunningham 2019).

    .. math::

        \log p(x) = \eta x - \log \frac{e^\eta - 1}{\eta}

    It is what a Bernoulli likelihood of grey values lacks: a normaliser.

    :param logits: eta, the natural parameter, shape ``(...)``.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational.likelihoods import ContinuousBernoulliDistribution
    >>> print(ContinuousBernoulliDistribution(jnp.array([0.0, 2.0])).mean.round(4))
    [0.5    0.6565]
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.unit_interval
    reparametrized_params = ["logits"]

    def __init__(self, logits: Any, *, validate_args: bool | None = None) -> None:
        self.logits = jnp.asarray(logits)
        super().__init__(jnp.shape(self.logits), (), validate_args=validate_args)

    def log_prob(self, value: Any, intermediates: list[Any] | None = None) -> jax.Array:
        """Log-density, shape ``broadcast(value, batch_shape)``."""
        del intermediates
        # log((e^eta - 1) / eta) = eta / 2 + log(sinh(y) / y) with y = eta / 2
        return self.logits * (value - 0.5) - _log_sinhc(0.5 * self.logits)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws by the inverse of the distribution function, shape ``sample_shape + batch_shape``."""
        uniform = jax.random.uniform(key, sample_shape + self.batch_shape, self.logits.dtype)
        logits = jnp.broadcast_to(self.logits, uniform.shape)
        small = jnp.abs(logits) < 1e-3
        safe = jnp.where(small, 1.0, -jnp.abs(logits))  # the mirror image, where e^eta cannot overflow
        drawn = jnp.log1p(uniform * jnp.expm1(safe)) / safe
        drawn = jnp.where(logits > 0, 1 - drawn, drawn)
        return jnp.where(small, uniform + 0.5 * logits * uniform * (uniform - 1), drawn)

    @property
    def mean(self) -> jax.Array:
        """Expected value, shape ``batch_shape``."""
        small = jnp.abs(self.logits) < 1e-2
        safe = jnp.where(small, 1.0, self.logits)
        exact = -1 / jnp.expm1(-safe) - 1 / safe
        return jnp.where(small, 0.5 + self.logits / 12 - self.logits**3 / 720, exact)

    @property
    def variance(self) -> jax.Array:
        """Variance, shape ``batch_shape``."""
        small = jnp.abs(self.logits) < 0.1
        safe = jnp.where(small, 1.0, jnp.clip(jnp.abs(self.logits), max=80.0))
        exact = 1 / jnp.where(small, 1.0, self.logits) ** 2 - 0.25 / jnp.sinh(0.5 * safe) ** 2
        return jnp.where(small, 1 / 12 - self.logits**2 / 240 + self.logits**4 / 6048, exact)


def _log_sinhc(y: jax.Array) -> jax.Array:
    """``log(sinh(y) / y)``, with gradients, near zero and far away."""
    size = jnp.abs(y)
    small = size < 0.1
    safe = jnp.where(small, 1.0, size)
    far = safe + jnp.log(-jnp.expm1(-2 * safe)) - jnp.log(2 * safe)
    square = jnp.where(small, y, 0.0) ** 2
    near = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square / 37800)))
    return jnp.where(small, near, far)
