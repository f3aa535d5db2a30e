"""What an energy may be able to do for samplers and estimators, and says that it can; nothing, by default."""

from collections.abc import Sequence

import torch

from _ppl_ebm.capabilities import CAPABILITIES, Capability
from _ppl_ebm.errors import no_entropy, no_reparametrised_draws
from pyro_ebm.sampling.protocols import Energy
from pyro_ebm.sampling.types import ArrayLike


class WithoutPartition:
    """Marks distributions over an energy whose ``log_prob`` needs no partition function, as learning criteria."""


class Capabilities:
    """Properties ``has_<capability>`` and the methods that go with them; a family overrides both together."""

    @property
    def has_exact_partition(self) -> bool:
        """Whether the family computes its partition function in closed form or by at most 2^16 terms."""
        return False

    @property
    def has_exact_sampler(self) -> bool:
        """Whether independent exact draws are available, whatever is declared about the partition function."""
        return False

    @property
    def has_ancestral_sampler(self) -> bool:
        """Whether ``ancestral_sample`` is there: exact draws of one coordinate after the other."""
        return False

    @property
    def has_gibbs_step(self) -> bool:
        """Whether ``gibbs_step`` is there: a reversible sweep of exact conditional draws."""
        return False

    @property
    def has_annealing(self) -> bool:
        """Whether ``at_inverse_temperature`` and ``base_log_partition`` are there: a path from independent units."""
        return False

    @property
    def has_conditional_logits(self) -> bool:
        """Whether ``conditional_logits`` is there: log odds of each binary unit given all others."""
        return False

    @property
    def has_continuous_score(self) -> bool:
        """Whether the score has no jumps, without which score matching would miss part of its trace."""
        return True

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All of the above that hold, by name."""
        return frozenset(name for name in CAPABILITIES if getattr(self, f"has_{name}"))

    def exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Independent draws of shape ``shape + event_shape``, where ``shape`` ends in ``batch_shape``.

        :raises NotImplementedError: unless :attr:`has_exact_sampler`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no exact sampler")

    def ancestral_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        """As :meth:`exact_sample`, one coordinate after the other.

        :raises NotImplementedError: unless :attr:`has_ancestral_sampler`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no order of its coordinates to draw in")

    def conditional_logits(self, value: ArrayLike) -> torch.Tensor:
        """Log odds of each binary unit given all others, shape of ``value``.

        :raises NotImplementedError: unless :attr:`has_conditional_logits`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no binary units")

    def gibbs_step(self, value: torch.Tensor) -> torch.Tensor:
        """A sweep of conditional draws that leaves the distribution invariant and is reversible.

        :raises NotImplementedError: unless :attr:`has_gibbs_step`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no conditionals to draw from")

    def check_sweeps(self) -> None:
        """Warn where Gibbs sweeps would not move between states, as far as (untraced) parameters tell cheaply."""

    def at_inverse_temperature(self, inverse_temperature: ArrayLike) -> Energy:
        """The family's path from independent units (0) to this distribution (1).

        :raises NotImplementedError: unless :attr:`has_annealing`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no path from independent units")

    @property
    def base_log_partition(self) -> torch.Tensor:
        """Exact log partition function of ``at_inverse_temperature(0)``, shape ``batch_shape``.

        :raises NotImplementedError: unless :attr:`has_annealing`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no path from independent units")

    def rsample(self, sample_shape: Sequence[int] = ()) -> torch.Tensor:
        """Refused: draws carry no gradient.

        :raises NotImplementedError: always.
        """
        raise no_reparametrised_draws(type(self).__name__)

    def entropy(self) -> torch.Tensor:
        """Refused: it has no closed form.

        :raises NotImplementedError: always.
        """
        raise no_entropy(type(self).__name__)
