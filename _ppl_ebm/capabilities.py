"""What energies may declare that they can do, and what samplers say to those that cannot."""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

#: What an energy may declare that it can do, by ``has_<capability>``.
Capability = Literal[
    "exact_partition",  # log_partition in closed form or by a sum
    "exact_sampler",  # exact_sample
    "ancestral_sampler",  # ancestral_sample
    "gibbs_step",  # gibbs_step
    "annealing",  # at_inverse_temperature and base_log_partition
    "conditional_logits",  # conditional_logits
    "continuous_score",  # a score without jumps, as score matching needs
]
CAPABILITIES: tuple[Capability, ...] = get_args(Capability)


class Capable(Protocol):
    """An energy, as far as the checks below look at it."""

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    @property
    def event_shape(self) -> Sequence[int]: ...

    @property
    def is_discrete(self) -> bool: ...


def check_sampler(energy: Capable, sampler: object, protocol: type, package: str) -> None:
    """Refuse whatever is not a sampler configuration.

    :param protocol: what samplers offer in this package.
    """
    if isinstance(sampler, type) or not isinstance(sampler, protocol):
        raise TypeError(
            f"sampler: {type(energy).__name__} expected None or one of Exact(), Ancestral(), Gibbs(), "
            f"Langevin(), Hamiltonian() from {package}.infer, got {sampler!r}"
        )


def check_chain(owner: str, sampler: object, protocol: type) -> None:
    """Refuse whatever is not a Markov chain.

    :param protocol: what Markov chains offer in this package.
    """
    if isinstance(sampler, type) or not isinstance(sampler, protocol):
        raise TypeError(
            f"sampler: {owner} expected a Markov chain such as Gibbs(), with the methods check, sample, init, tune, "
            f"advance and value, got {sampler!r}"
        )


def check_exact(energy: Capable) -> None:
    """Refuse energies without exact draws."""
    if "exact_sampler" not in energy.capabilities:
        raise TypeError(
            f"sampler: {type(energy).__name__} of event shape {tuple(energy.event_shape)} has no exact sampler (none "
            "in closed form, or more than 2^16 enumerated terms); expected a Markov chain"
        )


def check_ancestral(energy: Capable) -> None:
    """Refuse energies without an order of their coordinates."""
    if "ancestral_sampler" not in energy.capabilities:
        raise TypeError(
            f"sampler: Ancestral() needs a causal model such as CausalAutoencoder, got {type(energy).__name__}"
        )


def check_gibbs(energy: Capable) -> None:
    """Refuse energies without conditionals."""
    if "gibbs_step" not in energy.capabilities:
        raise TypeError(
            f"sampler: Gibbs() needs hidden units with conditionals, and {type(energy).__name__} has none; "
            "expected Langevin() or Hamiltonian()"
        )


def check_continuous(sampler: str, energy: Capable) -> None:
    """Refuse discrete energies, which have no score to move along."""
    if energy.is_discrete:
        raise TypeError(
            f"sampler: {sampler}() moves along the score, and {type(energy).__name__} is discrete; expected Gibbs() or "
            "Exact()"
        )
