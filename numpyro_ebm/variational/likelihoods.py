"""Distributions of data given what a decoder returns: binary, in the unit interval, real, or any of the host's.

A likelihood makes a host distribution of the decoder's raw output, with one value for each datum, and checks data
before they are observed under it. ``VAE`` makes likelihoods of names, numbers and functions, and takes any of its own.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logit
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import clamp_probs
from numpyro.util import not_jax_tracer

import _ppl_ebm.likelihoods as shared
from _ppl_ebm.autoencoders import check_event
from _ppl_ebm.checks import check_positive
from numpyro_ebm.sampling.types import Key, PyTree


class Likelihood:
    """The base: from a decoder's raw output to a host distribution, and a check of data."""

    #: Whether the decoder's outputs are logits, which would not all be in the unit interval.
    reads_logits: bool = False

    def distribution(self, raw: PyTree, name: str) -> Distribution:
        """The distribution of data; dimensions of a datum may still count as batch dimensions.

        :param raw: what the decoder returned, one array or several.
        :param name: start of the names of parameter sites.
        """
        raise NotImplementedError(f"{type(self).__name__} must define distribution(raw, name)")

    def check(self, value: jax.Array) -> None:
        """Raise ``ValueError`` for data (not traced) that cannot come from this likelihood."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Bernoulli(Likelihood):
    """Binary data.

    :param decoder_output: ``"logits"``, what the decoder returns, or ``"probabilities"``, from 0 to 1.
    :raises ValueError: for another name; on use, for outputs out of range (NaN where traced).

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational.likelihoods import Bernoulli
    >>> print(Bernoulli().distribution(jnp.zeros(2), "vae").log_prob(jnp.array([0.0, 1.0])).round(4))
    [-0.6931 -0.6931]
    """

    def __init__(self, decoder_output: shared.DecoderOutput = "logits") -> None:
        shared.check_decoder_output("Bernoulli", decoder_output, True)
        self.decoder_output, self.reads_logits = decoder_output, decoder_output == "logits"

    def distribution(self, raw: PyTree, name: str) -> Distribution:
        del name
        if self.reads_logits:
            return dist.Bernoulli(logits=_array(raw))
        return dist.Bernoulli(probs=_probabilities(_array(raw)))

    def __repr__(self) -> str:
        return f"Bernoulli({'' if self.reads_logits else repr(self.decoder_output)})"

    def check(self, value: jax.Array) -> None:
        if _fails(value, lambda array: (array == 0) | (array == 1)):
            raise shared.not_binary(*_range(value))


class ContinuousBernoulli(Likelihood):
    """Data in the unit interval, with the normaliser that makes it a density (Loaiza-Ganem & Cunningham 2019).

    :param decoder_output: ``"logits"``, what the decoder returns, or ``"probabilities"``, from 0 to 1,
        whose logits are the natural parameters (and which are not the means).
    :raises ValueError: for another name; on use, for outputs out of range (NaN where traced).

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational.likelihoods import ContinuousBernoulli
    >>> print(f"{ContinuousBernoulli().distribution(jnp.array(2.0), 'vae').log_prob(0.5):.4f}")
    -0.1614
    """

    def __init__(self, decoder_output: shared.DecoderOutput = "logits") -> None:
        shared.check_decoder_output("ContinuousBernoulli", decoder_output, True)
        self.decoder_output, self.reads_logits = decoder_output, decoder_output == "logits"

    def distribution(self, raw: PyTree, name: str) -> Distribution:
        del name
        if self.reads_logits:
            return ContinuousBernoulliDistribution(_array(raw))
        return ContinuousBernoulliDistribution(logit(clamp_probs(_probabilities(_array(raw)))))

    def __repr__(self) -> str:
        return f"ContinuousBernoulli({'' if self.reads_logits else repr(self.decoder_output)})"

    def check(self, value: jax.Array) -> None:
        if _fails(value, lambda array: (array >= 0) & (array <= 1)):
            raise shared.outside_unit_interval(*_range(value))


class Normal(Likelihood):
    """Real data with independent normal noise of a fixed or learned standard deviation, in units of the data.

    :param scale: the standard deviation of all entries, a positive number; ``None``: it is learned. Then the decoder
        returns either a pair, locations and log standard deviations, or the locations alone, beside which one standard
        deviation for all is learned, the parameter site ``<name>.scale``, starting at 1.
    :raises TypeError: for a ``scale`` that is no number.
    :raises ValueError: for one out of range; on use, for a pair of different shapes.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational.likelihoods import Normal
    >>> fixed, learned = Normal(0.5), Normal()
    >>> print(fixed.distribution(jnp.zeros(2), "vae").variance, learned.distribution((0.0, 0.0), "vae").variance)
    [0.25 0.25] 1.0
    """

    def __init__(self, scale: float | None = None) -> None:
        if scale is not None:
            check_positive("scale", scale)
        self.scale = scale

    def distribution(self, raw: PyTree, name: str) -> Distribution:
        if self.scale is None and isinstance(raw, (tuple, list)):
            shared.check_pair([jnp.shape(part) for part in raw])
            return dist.Normal(raw[0], jnp.exp(raw[1]))
        loc, scale = _array(raw), self.scale
        if scale is None:
            scale = numpyro.param(f"{name}.scale", jnp.ones((), loc.dtype), constraint=constraints.positive)
        return dist.Normal(loc, jnp.broadcast_to(jnp.asarray(scale, loc.dtype), loc.shape))

    def check(self, value: jax.Array) -> None:
        if _fails(value, np.isfinite):
            raise shared.not_finite()

    def __repr__(self) -> str:
        return f"Normal({'' if self.scale is None else self.scale})"


class Custom(Likelihood):
    """Any host distribution.

    :param function: maps the decoder's raw output, with all its batch dimensions, to it.

    >>> import jax.numpy as jnp
    >>> import numpyro.distributions as dist
    >>> from numpyro_ebm.variational.likelihoods import Custom
    >>> print(Custom(lambda raw: dist.Poisson(jnp.exp(raw))).distribution(jnp.zeros(2), "vae").mean)
    [1. 1.]
    """

    def __init__(self, function: Callable[[PyTree], Distribution]) -> None:
        self.function = function

    def distribution(self, raw: PyTree, name: str) -> Distribution:
        del name
        made = self.function(raw)
        if not isinstance(made, Distribution):
            raise TypeError(f"likelihood: expected a function to a NumPyro distribution, got {made!r} from it")
        return made

    def __repr__(self) -> str:
        return f"Custom({self.function!r})"


_NAMED: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "normal": Normal,
}
_OF_PROBABILITIES: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": functools.partial(Bernoulli, "probabilities"),
    "continuous_bernoulli": functools.partial(ContinuousBernoulli, "probabilities"),
}


def resolve_likelihood(
    likelihood: Likelihood | str | float | Callable[[PyTree], Distribution],
    owner: str,
    decoder_output: shared.DecoderOutput,
) -> Likelihood:
    """A likelihood itself, or what a name, a positive number or a function stands for.

    :param owner: the model's class.
    :param decoder_output: what the decoder returns, which a likelihood itself knows.
    """
    shared.check_decoder_output(owner, decoder_output, _reads_probabilities(likelihood))
    if decoder_output == "probabilities" and isinstance(likelihood, str):
        return _OF_PROBABILITIES[likelihood]()
    if isinstance(likelihood, Likelihood):
        return likelihood
    return shared.resolve_likelihood(likelihood, _NAMED, Custom, Normal)


class _OfData(dist.Independent):
    """Independent entries of data, which are refused, not broadcast, if they have another shape."""

    def log_prob(self, value: ArrayLike, intermediates: PyTree = None) -> jax.Array:
        check_event(jnp.shape(value), self.event_shape)
        return super().log_prob(value, intermediates)


def of_data(made: Distribution, num_dims: int) -> Distribution:
    """A distribution with so many batch dimensions made dimensions of a datum."""
    return _OfData(made, num_dims) if num_dims else made


def _reads_probabilities(likelihood: object) -> bool:
    if isinstance(likelihood, (Bernoulli, ContinuousBernoulli)):
        return likelihood.decoder_output == "probabilities"
    return isinstance(likelihood, str) and likelihood in _OF_PROBABILITIES


def _array(raw: PyTree) -> jax.Array:
    if not isinstance(raw, jax.Array):
        raise TypeError(f"decoder: this likelihood expected one array of raw parameters, got {type(raw).__name__}")
    return raw


def _probabilities(raw: jax.Array) -> jax.Array:
    """Outputs themselves, NaN where they are traced and no probabilities."""
    is_probability = (raw >= 0) & (raw <= 1)
    if not_jax_tracer(is_probability) and not is_probability.all():
        raise shared.not_probabilities(*_range(raw))
    return jnp.where(is_probability, raw, jnp.nan)


def _fails(value: jax.Array, holds: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether any entry of an array, unless it is traced, fails a test."""
    return bool(not_jax_tracer(value)) and not bool(np.all(holds(np.asarray(value))))


def _range(value: jax.Array) -> tuple[float, float]:
    return float(np.min(value)), float(np.max(value))


class ContinuousBernoulliDistribution(Distribution):
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

    def __init__(self, logits: ArrayLike, *, validate_args: bool | None = None) -> None:
        self.logits = jnp.asarray(logits)
        super().__init__(jnp.shape(self.logits), (), validate_args=validate_args)

    def log_prob(self, value: ArrayLike, intermediates: PyTree = None) -> jax.Array:
        """Log-density, shape ``broadcast(value, batch_shape)``."""
        del intermediates
        # log((e^eta - 1) / eta) = eta / 2 + log(sinh(y) / y) with y = eta / 2
        return self.logits * (value - 0.5) - _log_sinhc(0.5 * self.logits)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> jax.Array:
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
