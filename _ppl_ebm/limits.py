"""Numbers that bound what is tried: sizes up to which sums are exact by default, and how often chains start anew."""

#: Largest number of terms that ``log_partition="auto"`` enumerates.
MAX_ENUMERATED_TERMS = 2**16
#: How often starting points of chains without a finite energy are drawn anew.
NUM_REDRAWS = 50
#: Stands for a state of discrete variables where there is none and a traced program cannot say so; no variable has it.
NO_STATE = -(2**31)

#: Whether chains remember their starts is told by so many of them at most, where so many at least are expected in each
#: of four cases, and from so many standard errors on: under independence one of these numbers in 10^9 or fewer, by the
#: hypergeometric distribution.
MEMORY_CHAINS, MEMORY_COUNT, MEMORY_THRESHOLD = 2000, 25, 7.0

#: Effective size of importance weights below which their spread tells no standard error.
MIN_EFFECTIVE_SIZE = 10

_CHUNK_UNITS = 10
_MAX_NUMBERS = 2**24


def chunk_units(cost: int) -> int:
    """Units of which all states are summed over at once: ten, or fewer where that takes more than 2^24 numbers.

    :param cost: numbers that the terms of one state take, of all models together.

    >>> chunk_units(784), chunk_units(20_000), chunk_units(100 * 20_000)
    (10, 9, 3)
    """
    return min(_CHUNK_UNITS, max(0, (_MAX_NUMBERS // max(1, cost)).bit_length() - 1))
