"""Numbers that bound what is tried: sizes up to which sums are exact by default, and how often chains start anew."""

#: Largest number of terms that ``log_partition="auto"`` enumerates.
MAX_ENUMERATED_TERMS = 2**16
#: How often starting points of chains without a finite energy are drawn anew.
NUM_REDRAWS = 50
#: Stands for a state of discrete variables where there is none and a traced program cannot say so; no variable has it.
NO_STATE = -(2**31)

#: Effective size of importance weights below which their spread tells no standard error.
MIN_EFFECTIVE_SIZE = 10
