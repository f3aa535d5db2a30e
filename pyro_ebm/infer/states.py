"""Checks of states that come from a file: what their tensors say must fit together, before chains go on from it."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from pyro_ebm.infer.kernel import KernelState


def check_consistent(state: KernelState, num_chains: int) -> None:
    """Refuse a kernel's state of other chains, or whose parts do not belong together.

    :raises ValueError: naming the part.
    """
    if isinstance(state.num_steps, bool) or not isinstance(state.num_steps, int) or state.num_steps < 0:
        raise ValueError(f"state_dict: num_steps: expected a non-negative integer, got {state.num_steps!r}")
    for name, leaf in _leaves("state_dict", {**state.state_dict(), "num_steps": torch.tensor(state.num_steps)}):
        if not isinstance(leaf, torch.Tensor):
            raise ValueError(f"{name}: expected a tensor, got {type(leaf).__name__}")
    for name, leaf in state.chain._asdict().items():
        if leaf.shape[:1] != (num_chains,):
            raise ValueError(f"state_dict: {name}: expected {num_chains} chains in front, got {tuple(leaf.shape)}")
    like = state.chain.position
    size, moments = like.shape[-1:], state.adaptation.moments._asdict()
    sizes = {name: (moments[name], size) for name in moments if name != "count"}
    sizes |= {
        "scale": (state.adaptation.scale, size),
        "accept_prob": (state.accept_prob, state.chain.log_density.shape),
    }
    sizes |= {"log_density": (state.chain.log_density, like.shape[:-1]), "score": (state.chain.score, like.shape)}
    for name, (leaf, shape) in sizes.items():
        _check(f"state_dict: {name}", leaf, tuple(shape), like.dtype)


def check_draws(draws: Mapping[str, Any], like: torch.Tensor, num_drawn: int) -> None:
    """Refuse draws that are not of these chains.

    :param like: positions of the chains, shape ``(chains, D)``.
    """
    if bool(draws) != bool(num_drawn):
        raise ValueError(f"state_dict: draws: expected {num_drawn}, as the kernel has made, got {sorted(draws)}")
    for name, field in draws.items():
        if not isinstance(field, torch.Tensor) or field.shape[:2] != (len(like), num_drawn):
            got = tuple(field.shape) if isinstance(field, torch.Tensor) else type(field).__name__
            raise ValueError(
                f"state_dict: draws: expected {name!r} of shape {(len(like), num_drawn, '...')}, got {got}"
            )
    if draws:
        if "position" not in draws:
            raise ValueError(f"state_dict: draws: expected 'position' among them, got {sorted(draws)}")
        shape = (len(like), num_drawn, like.shape[-1])
        _check("state_dict: draws: position", draws["position"], shape, like.dtype)


def _check(name: str, leaf: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(leaf.shape) != shape or leaf.dtype != dtype:
        raise ValueError(f"{name}: expected shape {shape} and {dtype}, got {tuple(leaf.shape)} and {leaf.dtype}")


def _leaves(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """All parts of nested dictionaries, by name."""
    if not isinstance(tree, dict):
        yield name, tree
        return
    for key, part in tree.items():
        yield from _leaves(f"{name}: {key}", part)
