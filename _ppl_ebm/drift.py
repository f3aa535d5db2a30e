"""Whether persistent chains have lost the model they are meant to draw from.

In equilibrium the energies of chains vary by about ``sqrt(D / 2)`` for D units, and the mean energies of data and
chains approach each other as a model learns. Chains that a fast change of the parameters leaves behind stay at high
energies, and their gradient drives the parameters on. Measured, in nats a unit: chains of machines that learn digits
keep to 0.2 (1.2 for a moment, at a learning rate of 2), those of two far modes at too large a rate pass 50 and grow.
"""

import warnings

import numpy as np

#: Nats per unit by which energies of chains in equilibrium neither miss those of the data nor vary among each other.
MAX_DRIFT = 10.0
#: Standard errors that are chance.
MAX_ERRORS = 4.5
_GROWTH = 1.25

_LOST = (
    "the parameters diverged, or the step of the sampler is too large: take a smaller learning rate or step_size, and "
    "start the chains anew from data"
)


def check_finite(name: str, what: str, is_finite: np.ndarray) -> None:
    """Refuse chains or energies that are NaN or infinite.

    >>> check_finite("chains", "values", np.array([True, False]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: chains: expected finite values, got 1 of 2 NaN or infinite; the parameters diverged, ...
    """
    if not is_finite.all():
        num_lost = np.count_nonzero(~is_finite)
        raise ValueError(f"{name}: expected finite {what}, got {num_lost} of {is_finite.size} NaN or infinite; {_LOST}")


def warn_of_drift(drift: np.ndarray, earlier: np.ndarray | None, gap: np.ndarray, stacklevel: int) -> None:
    """Warn where the drift is large and grows: by anything for chains above the data, else by a quarter, for data are
    far from a model that has learned nothing yet. Without an earlier drift, only chains above the data are told of.

    :param drift: nats per unit by which data and chains differ beyond chance, or chains among each other.
    :param earlier: the drift of the report before.
    :param gap: mean energy of the data less that of the chains.
    """
    grows = gap < 0 if earlier is None else drift > np.where(gap < 0, 1.0, _GROWTH) * earlier
    is_lost = (drift > MAX_DRIFT) & grows
    if is_lost.any():
        worst = np.unravel_index(np.argmax(np.where(is_lost, drift, 0.0)), drift.shape)
        warnings.warn(
            f"chains: expected chains that follow the model, got a drift of {drift[worst]:.3g} nats a unit "
            f"({MAX_DRIFT:g} at most; mean energies of data and chains differ by {gap[worst]:.3g}): their gradient is "
            "no longer the model's. Take a smaller learning rate or more num_steps, and restart the chains from data",
            stacklevel=stacklevel + 1,
        )
