"""Arguments and results of autoencoders: checks that need no array, and what measures return."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from _ppl_ebm.checks import check_positive_int

Array = TypeVar("Array")


class ELBODecomposition(NamedTuple, Generic[Array]):
    """Means over data, in nats; ``elbo = reconstruction - mutual_information - marginal_kl``.

    :param elbo: evidence lower bound.
    :param reconstruction: expected log-likelihood given latent variables from the encoder.
    :param mutual_information: of the data's index and z under the encoder, between 0 and log N.
    :param marginal_kl: KL divergence of the aggregated posterior from the prior.
    """

    elbo: Array
    reconstruction: Array
    mutual_information: Array
    marginal_kl: Array


class InferenceGap(NamedTuple, Generic[Array]):
    """Where a bound loses what it loses, in nats for each datum, shape ``(N,)``.

    :param elbo: of the encoder's q(z | x).
    :param fitted_elbo: of the member of the same family that is fitted to draws from the posterior.
    :param log_likelihood: importance-weighted, with a normal distribution of full covariance fitted to those draws.
    """

    elbo: Array
    fitted_elbo: Array
    log_likelihood: Array

    @property
    def amortization(self) -> Array:
        """``fitted_elbo - elbo``: what an encoder loses that is shared by all data."""
        return self.fitted_elbo - self.elbo  # type: ignore[operator]

    @property
    def approximation(self) -> Array:
        """``log_likelihood - fitted_elbo``: what the family of q loses."""
        return self.log_likelihood - self.fitted_elbo  # type: ignore[operator]


class RefinedPosterior(NamedTuple, Generic[Array]):
    """Draws of z, shape ``(num_samples, N, latent_size)``, and each chain's mean acceptance, ``(num_samples, N)``."""

    latent: Array
    accept_prob: Array


# ---------------------------------------------------------------------- models


def check_name(name: object, reserved: str | None = None) -> str:
    """The start of the names of parameters itself, unless it is anything but a string that is not empty.

    :param reserved: what it must not contain.
    """
    if not isinstance(name, str) or not name or (reserved is not None and reserved in name):
        without = "" if reserved is None else f', without "{reserved}"'
        raise ValueError(f"name: expected a string that is not empty{without}, got {name!r}")
    return name


def not_a_prior(owner: str, prior: object) -> TypeError:
    """The error of anything else given as a prior."""
    return TypeError(f'prior: {owner} expected "standard" or a prior such as MixturePrior, got {prior!r}')


def check_prior_size(latent_size: int, expected: int) -> None:
    """Refuse a prior over another number of variables."""
    if latent_size != expected:
        raise ValueError(f"prior: expected one over {expected} variables, got {latent_size}")


def check_free_bits(free_bits: float, covariance: str, prior: str, splits: bool) -> None:
    """Refuse free bits where the KL does not split into latent dimensions.

    :param prior: the prior's class.
    :param splits: whether it does.
    """
    if free_bits > 0 and not splits:
        raise ValueError(
            f"free_bits: expected 0 with {covariance} covariance and a {prior}, whose KL does not split into latent "
            f'dimensions, got {free_bits!r}; use covariance="diagonal" with a normal prior, or kl_weight'
        )


def check_prior(event_shape: tuple[int, ...], latent_size: int) -> None:
    """Refuse a prior's distribution over anything but vectors of ``latent_size`` variables."""
    if tuple(event_shape) != (latent_size,):
        raise ValueError(f"prior: expected event shape ({latent_size},), got {tuple(event_shape)}")


def check_latent(shape: tuple[int, ...], latent_size: int) -> None:
    """Refuse latent variables of another size."""
    if tuple(shape[-1:]) != (latent_size,):
        raise ValueError(f"z: expected shape (..., {latent_size}), got {tuple(shape)}")


def check_aligned(condition: tuple[int, ...], lead: tuple[int, ...]) -> None:
    """Refuse conditions, by their shape, of which there is not one for each z of batch shape ``lead``."""
    if not condition or tuple(lead[-1:]) != tuple(condition[:1]):
        raise ValueError(
            f"condition: expected shape (N, ...) for z of batch shape {tuple(lead)}, whose last entry is N, got "
            f"{tuple(condition)}"
        )


def check_data_shape(shape: tuple[int, ...], event_shape: tuple[int, ...]) -> None:
    """Refuse data, by their shape, that are not what the decoder describes."""
    if tuple(shape[1:]) != tuple(event_shape):
        raise ValueError(
            f"x: the decoder's output is a distribution over shape {tuple(event_shape)} for each datum, got data of "
            f"shape {tuple(shape)}"
        )


def check_event(shape: tuple[int, ...], event_shape: tuple[int, ...]) -> None:
    """Refuse values of one or more data, by their shape, that would be broadcast with what the decoder describes."""
    if tuple(shape[max(len(shape) - len(event_shape), 0) :]) != tuple(event_shape):
        raise ValueError(
            f"x: the decoder's output is a distribution over shape {tuple(event_shape)} for each datum, got data of "
            f"shape {tuple(shape)}"
        )


def nothing_to_encode() -> ValueError:
    """The error of a guide without data."""
    return ValueError("x: the guide expected data to encode, got None")


def check_parameters(given: Mapping[str, object], learned: list[str], statistics: list[str]) -> None:
    """Refuse learned values that lack some of a model's networks.

    :param given: by the names of sites.
    :param learned: names of the sites of learned arrays.
    :param statistics: names of the sites of running statistics, which are no parameters of SVI.
    """
    if not given.keys() >= {*learned, *statistics}:
        instead = "; running statistics are in the state of SVI: {**result.params, **result.state.mutable_state}"
        expected = [*learned, *statistics]
        raise ValueError(
            f"parameters: expected at least {expected}, got {sorted(given)}{instead if statistics else ''}"
        )


def one_row_to_normalise(name: str, layer: str) -> ValueError:
    """The error of a layer in training mode that has one datum to normalise over, of which it makes zeros.

    :param name: the network's name.
    """
    return ValueError(
        f"{name}: expected more than one row for a {layer} in training mode, which normalises over them, got 1; "
        "use .eval() for its running statistics"
    )


class Doubts:
    """What an autoencoder warns of, each once, and what it has seen so far."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._num_decoded = 0
        self._only_zero: bool | None = None

    def _tell(self, topic: str, message: str) -> None:
        if topic not in self._told:
            self._told.add(topic)
            warnings.warn(message, UserWarning, stacklevel=5)

    def of_logits(self, find_range: Callable[[], tuple[float, float]], size: int, num_rows: int) -> None:
        """Warn of logits that look like probabilities: all in the unit interval, of several entries in several data.

        Of many calls those are looked at whose number is a power of two.

        :param find_range: finds the least and the largest of them.
        :param size: entries of a datum.
        :param num_rows: data.
        """
        if size < _MIN_ENTRIES or size * num_rows < _MIN_LOGITS or "logits" in self._told:
            return
        self._num_decoded += 1
        if self._num_decoded & (self._num_decoded - 1):
            return
        low, high = find_range()
        if low >= 0 and 0 < high <= 1:
            self._tell(
                "logits",
                f"decoder: expected logits, got {num_rows} x {size} outputs all from {low:.3g} to {high:.3g}, which "
                f"stand for probabilities from {_sigmoid(low):.3g} to {_sigmoid(high):.3g}; if they are probabilities, "
                'as those of a last sigmoid, say so by decoder_output="probabilities"',
            )

    def of_weight(self, weight: float | None, is_default: bool, find_learned: Callable[[], bool]) -> None:
        """Warn of a prior that is learned with a KL of weight 0.

        :param weight: of the KL in a step, ``None`` where it is traced.
        :param is_default: whether it is the model's own.
        :param find_learned: finds whether the prior has something to learn.
        """
        self._only_zero = weight == 0 and self._only_zero is not False
        if weight == 0 and is_default and find_learned():
            self._tell("weight", _UNTRAINED.format("kl_weight=0 leaves"))

    def of_prior(self, find_learned: Callable[[], bool]) -> None:
        """Warn, before a prior is used, if every step so far had a KL of weight 0."""
        if self._only_zero and find_learned():
            self._tell("weight", _UNTRAINED.format("kl_weight was 0 in every step so far, which leaves"))


_MIN_ENTRIES, _MIN_LOGITS = 4, 32
_UNTRAINED = (
    "kl_weight: {} the learned prior where it was, for nothing but the KL depends on it; draws from the model and "
    "bounds on its likelihood use it nevertheless"
)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# ---------------------------------------------------------------------- measures


def check_samples(num_samples: int, batch_size: int) -> None:
    """Refuse sizes of an estimate that are no positive integers."""
    check_positive_int("num_samples", num_samples)
    check_positive_int("batch_size", batch_size)


def split_data(data: Any, is_conditional: bool) -> tuple[Any, Any]:
    """Data and ``None``, or the data and conditions of a pair."""
    if not is_conditional:
        return data, None
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"data: expected a pair (x, condition) for a CVAE, got {type(data).__name__}")
    return data[0], data[1]


def check_draws(shape: tuple[int, ...], num_data: int, latent_size: int) -> None:
    """Refuse draws from posteriors, by their shape, of other data or too few to invert their covariance."""
    if len(shape) != 3 or tuple(shape[1:]) != (num_data, latent_size) or shape[0] <= latent_size:
        raise ValueError(
            f"draws: expected shape (more than {latent_size}, {num_data}, {latent_size}), got {tuple(shape)}"
        )


# ---------------------------------------------------------------------- guides


def event_shapes(sites: Mapping[str, int | tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The event shape of each site by name, of which integers stand for vectors.

    >>> event_shapes({"z": 2, "rate": ()})
    {'z': (2,), 'rate': ()}
    """
    if not isinstance(sites, Mapping):
        raise TypeError(f"sites: expected a mapping from names to event shapes, got {type(sites).__name__}")
    if not sites:
        raise ValueError("sites: expected at least one site, got none")
    shapes = {site: (shape,) if isinstance(shape, int) else shape for site, shape in sites.items()}
    for site, shape in shapes.items():
        if not isinstance(shape, tuple):
            raise ValueError(f"sites[{site!r}]: expected an event shape, got {shape!r}")
        for size in shape:
            check_positive_int(f"sites[{site!r}]", size)
    return shapes


def check_supports(supports: Mapping[str, object], sites: Mapping[str, object]) -> None:
    """Refuse supports of sites that the guide does not have."""
    if not supports.keys() <= sites.keys():
        raise ValueError(f"supports: expected some of the sites {list(sites)}, got {list(supports)}")
