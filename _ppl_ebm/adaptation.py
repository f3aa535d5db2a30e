"""The warm-up of kernels: when it learns what, its constants, and arithmetic on numbers or on either host's arrays."""

import dataclasses
import math
from typing import Any, NamedTuple

PRECONDITIONERS = ("gradients", "variances", None)
# buffers before the first window and after the last: Stan's, but at most a share of the transitions that learn
START_BUFFER, START_SHARE = 75, 0.15
END_BUFFER, END_SHARE = 50, 0.25
MIN_WINDOW = 5  # transitions of the first window, at least
STABILISER, SHRINKAGE, FORGETTING = 10, 0.1, 0.75  # t0, gamma (0.05 there) and kappa of Hoffman & Gelman (2014)
PRIOR_DRAWS = 5  # the weight of the scale before a window, in the logarithm of the one after it
LINEAR = 0.5  # correlation of minus the score with the position from which on their slope counts
MAX_REACH = 30.0  # a scale is at most so many standard deviations of what the chain has seen
STUCK, MAX_HALVINGS = 0.05, 30  # acceptance probability below which one of several chains halves its own step


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When a warm-up learns what. The last tenth learns nothing, so that the first draw kept is one of the target.

    The step size changes in all other transitions. The preconditioner is renewed at the end of windows that double as
    in Stan: the first begins after a buffer, and the last leaves time to tune the step size to what it has found.

    :param num_warmup: transitions of the warm-up.

    >>> Schedule(1000).windows, Schedule(1000).num_adapting
    (((75, 100), (100, 150), (150, 250), (250, 450), (450, 850)), 900)
    >>> Schedule(30).windows, Schedule(30).num_adapting
    (((4, 9), (9, 21)), 27)
    """

    num_warmup: int

    @property
    def num_adapting(self) -> int:
        """Transitions that learn: all but the last tenth."""
        return self.num_warmup - math.ceil(self.num_warmup / 10)

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """First transition, and the one after the last, of every window."""
        start = min(START_BUFFER, int(START_SHARE * self.num_adapting))
        end = self.num_adapting - min(END_BUFFER, int(END_SHARE * self.num_adapting))
        length = max(MIN_WINDOW, start // 3)
        windows = []
        while start + length <= end:
            if 3 * length > end - start:  # the next window, twice as long, would not fit
                length = end - start
            windows.append((start, start + length))
            start, length = start + length, 2 * length
        return tuple(windows)


class DualAveraging(NamedTuple):
    """A log step size that follows acceptance probabilities (Nesterov 2009; Hoffman & Gelman 2014).

    :param centre: where it starts, and is drawn to weakly.
    :param count: transitions seen.
    :param shortfall: running mean of how far acceptance fell short of its target.
    :param log_step: the step to try next.
    :param log_average: the average of those tried, latest most.
    """

    centre: Any
    count: Any
    shortfall: Any
    log_step: Any
    log_average: Any

    @classmethod
    def start(cls, centre: Any) -> "DualAveraging":
        """Nothing seen, at this log step size."""
        zero = 0 * centre
        return cls(centre, zero, zero, centre, centre)

    def update(self, shortfall: Any) -> "DualAveraging":
        """After one more transition.

        :param shortfall: target minus acceptance probability.
        """
        count = self.count + 1
        mean = self.shortfall + (shortfall - self.shortfall) / (count + STABILISER)
        log_step = self.centre - count**0.5 / SHRINKAGE * mean
        average = self.log_average + count**-FORGETTING * (log_step - self.log_average)
        return DualAveraging(self.centre, count, mean, log_step, average)


class Moments(NamedTuple):
    """Running means of positions and scores, and sums of squares and products about them.

    :param count: rows seen.
    :param position: mean position, shape ``(D,)``.
    :param score: mean score.
    :param position_squares: sum of squared deviations, shape ``(D,)``.
    :param score_squares: likewise.
    :param products: sum of the products of both deviations.
    """

    count: Any
    position: Any
    score: Any
    position_squares: Any
    score_squares: Any
    products: Any

    def merge(self, other: "Moments") -> "Moments":
        """Of both together (Chan, Golub & LeVeque 1983); one of them must have seen something."""
        count = self.count + other.count
        share = other.count / count
        shift, turn, weight = other.position - self.position, other.score - self.score, self.count * share
        return Moments(
            count,
            self.position + share * shift,
            self.score + share * turn,
            self.position_squares + other.position_squares + weight * shift**2,
            self.score_squares + other.score_squares + weight * turn**2,
            self.products + other.products + weight * shift * turn,
        )
