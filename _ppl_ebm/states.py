"""Checks of states that come from a file, before anything is made of them."""

from collections.abc import Collection, Mapping


def check_fields(owner: str, state: object, names: Collection[str]) -> None:
    """Refuse anything but a mapping with exactly these keys.

    :param owner: what messages call it.

    >>> check_fields("state_dict", {"draws": {}, "epoch": 3}, ["kernel", "draws"])
    Traceback (most recent call last):
    ValueError: state_dict: expected the keys ['kernel', 'draws'], got one without ['kernel'] and with ['epoch']
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"{owner}: expected a mapping with the keys {list(names)}, got {type(state).__name__}")
    missing = [name for name in names if name not in state]
    unexpected = [name for name in state if name not in names]
    if missing or unexpected:
        parts = [f"without {missing}"] * bool(missing) + [f"with {unexpected}"] * bool(unexpected)
        raise ValueError(f"{owner}: expected the keys {list(names)}, got one {' and '.join(parts)}")
