"""What inference over a program's sites needs to know of its energies: findings, and what is said of them."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from _ppl_ebm.errors import IntractablePartitionError

#: What to do about a normaliser that inference would need.
OnUnknown = Literal["error", "warn"]


class EnergySite(NamedTuple):
    """An energy distribution among the sites of a program.

    :param name: of the site.
    :param family: the class of the energy.
    :param is_observed: whether its value is data.
    :param is_normalized: whether its log-density has its constant.
    :param is_guarded: whether its log-density must not follow its parameters: the constant is unknown, or a number.
    :param is_compared: whether it is a component of a mixture.
    :param depends_on: latent and learned sites that its parameters depend on, sorted.
    :param scaled_by: latent and learned sites that the site's scale depends on, sorted.
    """

    name: str
    family: str
    is_observed: bool
    is_normalized: bool
    is_guarded: bool
    is_compared: bool = False
    depends_on: tuple[str, ...] = ()
    scaled_by: tuple[str, ...] = ()

    @property
    def problem(self) -> str | None:
        """Where inference would need the constant, in words; ``None`` where it does not."""
        if self.is_compared and not self.is_normalized:
            return "is compared with the other components of a mixture"
        if self.is_guarded and self.depends_on:
            return f"has parameters that depend on {_quoted(self.depends_on)}"
        if self.scaled_by and not self.is_normalized:
            return f"has an exponent that depends on {_quoted(self.scaled_by)}"
        return None


def check_choice(on_unknown: str) -> None:
    """Refuse anything but "error" and "warn".

    >>> check_choice("ignore")
    Traceback (most recent call last):
    ValueError: on_unknown: expected 'error' or 'warn', got 'ignore'
    """
    if on_unknown not in ("error", "warn"):
        raise ValueError(f"on_unknown: expected 'error' or 'warn', got {on_unknown!r}")


def judge(sites: Sequence[EnergySite], package: str, on_unknown: OnUnknown, cancels: bool = False) -> None:
    """Raise, or warn, for every energy whose constant inference would need.

    :param cancels: whether the constants of observed energies may depend on anything.
    :raises IntractablePartitionError: with ``on_unknown="error"``, of the first.

    >>> site = EnergySite("v", "BernoulliRBM", True, False, True, depends_on=("w",))
    >>> judge([site], "pyro_ebm", "error")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    _ppl_ebm.errors.IntractablePartitionError: site 'v': the partition function of BernoulliRBM is not known, and it ...
    """
    for site in sites:
        if cancels and site.is_observed and not site.is_compared:
            site = site._replace(depends_on=())
        if site.problem is None:
            continue
        known = "a number that does not follow its parameters" if site.is_normalized else "not known"
        message = (
            f"site {site.name!r}: the partition function of {site.family} is {known}, and it {site.problem}: inference "
            "over that needs the constant. Remedies: (1) a family or size with an exact one; (2) an estimator, "
            f"log_partition={package}.infer.AnnealedImportanceSampling(...); (3) {package}.infer.Exchange, for "
            "parameters of observed energies; (4) a learning criterion of the objectives"
        )
        if on_unknown == "error":
            raise IntractablePartitionError(message)
        warnings.warn(message, stacklevel=4)


def contained(distribution: Any, distribution_type: type, wanted: type, excluded: type) -> Iterator[tuple[Any, bool]]:
    """The ``wanted`` distributions inside another, and whether each is a component among several.

    :param distribution: of a sample site.
    :param distribution_type: the host's base class.
    :param excluded: of distributions that are not looked into.
    """
    if isinstance(distribution, wanted):
        yield distribution, False
        return
    if isinstance(distribution, excluded) or not isinstance(distribution, distribution_type):
        return
    parts = [
        part for held in vars(distribution).values() for part in (held if isinstance(held, list | tuple) else [held])
    ]
    parts = [part for part in parts if isinstance(part, distribution_type)]
    for part in parts:
        for found, is_compared in contained(part, distribution_type, wanted, excluded):
            yield found, is_compared or len(parts) > 1


def _quoted(names: Sequence[str]) -> str:
    kind = "site" if len(names) == 1 else "sites"
    return f"{kind} {', '.join(map(repr, names))}"
