"""Inference data for ArviZ, in the call style of whichever version is installed."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

#: Arrays of either backend by variable.
Variables: TypeAlias = Mapping[str, Any]


#: ArviZ's names for what kernels report.
_STATISTICS = {
    "accept_prob": "acceptance_rate",
    "diverging": "diverging",
    "energy": "energy",
    "num_steps": "n_steps",
    "potential_energy": "lp",
}


def check_source(mcmc: object, posterior: Variables | None) -> None:
    """Refuse both or neither of a run and the arrays that would stand for one."""
    if (mcmc is None) == (posterior is None):
        raise ValueError("mcmc, posterior: to_arviz expected exactly one of them")


def statistics(fields: Variables) -> dict[str, Any]:
    """Sample statistics of ArviZ, of those fields of a run that it has a name for.

    :param fields: arrays of shape ``(chain, draw)`` by the hosts' names.

    >>> statistics({"accept_prob": 0.5, "potential_energy": 2.0, "swap_prob": 0.1})
    {'acceptance_rate': 0.5, 'lp': -2.0}
    """
    stats = {_STATISTICS[name]: value for name, value in fields.items() if name in _STATISTICS}
    return {name: -value if name == "lp" else value for name, value in stats.items()}


def inference_data(
    groups: Mapping[str, Variables | None],
    observed_data: Variables | None,
    coords: Mapping[str, Any] | None,
    dims: Mapping[str, Any] | None,
    *,
    to_numpy: Callable[[Any], np.ndarray] = np.asarray,
) -> Any:
    """An ``InferenceData`` (ArviZ 0.x) or ``DataTree`` (1.x) of all groups that are not empty.

    :param groups: variables of shape ``(chain, draw, ...)`` by group.
    :param observed_data: variables without chain and draw dimensions.
    :param coords: coordinate values by dimension name.
    :param dims: dimension names by variable.
    :param to_numpy: makes NumPy arrays of a backend's.
    :raises ValueError: for arrays without the two leading dimensions.
    :raises ImportError: if ArviZ is not installed.
    """
    arrays: dict[str, Any] = {group: _chain_draw(group, values, to_numpy) for group, values in groups.items() if values}
    if observed_data:
        arrays["observed_data"] = {name: to_numpy(value) for name, value in observed_data.items()}
    return _from_dict(arrays, coords, dims)


def _chain_draw(group: str, values: Variables, to_numpy: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    arrays = {name: to_numpy(value) for name, value in values.items()}
    for name, array in arrays.items():
        if array.ndim < 2:
            raise ValueError(f"{group}: expected {name!r} of shape (chain, draw, ...), got {array.shape}")
    return arrays


def _from_dict(
    groups: dict[str, Any],
    coords: Mapping[str, Any] | None,
    dims: Mapping[str, Any] | None,
) -> Any:
    try:
        import arviz
    except ImportError as error:
        raise ImportError('to_arviz needs ArviZ; install it with: pip install "ppl-ebm[arviz]"') from error
    if "data" in inspect.signature(arviz.from_dict).parameters:  # ArviZ 1.x
        return arviz.from_dict(groups, coords=coords, dims=dims)
    return arviz.from_dict(**groups, coords=coords, dims=dims)
