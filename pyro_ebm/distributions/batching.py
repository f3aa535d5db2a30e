"""Tensor helpers for writing a family: conversion, broadcasting, products and derivatives that torch lacks."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


def linear(value: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``value @ weights + bias``, where all three may have batch dimensions that broadcast.

    :param value: shape ``(..., D)``.
    :param weights: shape ``(..., D, K)``.
    :param bias: shape ``(..., K)``.
    """
    if weights.dim() == value.dim() == 2 and bias is not None and bias.shape == (len(value), weights.shape[1]):
        return torch.addmm(bias, value, weights)
    if weights.dim() == 2 and (bias is None or bias.dim() == 1):
        return torch.nn.functional.linear(value, weights.mT, bias)
    # Where only the weights are batched, einsum folds the other dimensions of the values into one matrix product.
    product = value @ weights if weights.dim() == 2 else torch.einsum("...d,...dk->...k", value, weights)
    return product if bias is None else product + bias


#: ``log(1 + exp(x))`` to full double precision; torch switches to ``x`` at 20, where the error is 2e-9.
softplus = functools.partial(torch.nn.functional.softplus, threshold=40.0)


def cholesky(matrix: torch.Tensor) -> torch.Tensor:
    """Lower Cholesky factors of a batch of matrices, NaN where one is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return torch.where(failed[..., None, None] > 0, math.nan, factor)


def pullback(
    function: Callable[[torch.Tensor], torch.Tensor], position: torch.Tensor, create_graph: bool
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """``function(position)`` and its vector-Jacobian product; works under ``torch.no_grad`` and ``torch.func``.

    :param create_graph: whether the products may be differentiated again.
    """
    if in_function_transform():
        output, products, *_ = torch.func.vjp(function, position)
        return output, lambda cotangent: products(cotangent)[0]
    with torch.enable_grad():
        position = position if position.requires_grad else position.detach().requires_grad_()
        output = function(position)

    def product(cotangent: torch.Tensor) -> torch.Tensor:
        if not output.requires_grad:
            return torch.zeros_like(position)
        options: dict[str, Any] = {"create_graph": create_graph, "retain_graph": True, "materialize_grads": True}
        return torch.autograd.grad(output, position, cotangent, **options)[0]

    return output, product


def as_tensor(name: str, value: Any, device: torch.device | None, dtype: torch.dtype) -> torch.Tensor:
    """``value`` itself if it is a tensor on ``device``, else converted; Python's floats take ``dtype``."""
    if isinstance(value, torch.Tensor):
        if device is not None and value.device != device:
            raise ValueError(f"{name}: expected a tensor on device {device}, got one on {value.device}")
        return value
    if _holds_tensor(value):
        raise TypeError(f"{name}: expected a tensor, got a {type(value).__name__} of tensors; use torch.stack")
    try:
        tensor = torch.tensor(value, device=device)
        if tensor.is_floating_point() and not isinstance(value, np.ndarray):
            tensor = torch.tensor(value, device=device, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected a tensor or real numbers, got {type(value).__name__}") from error
    return tensor


def _holds_tensor(value: Any) -> bool:
    """Whether a list or tuple has tensors in it, whose gradients a conversion would lose."""
    return isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) or _holds_tensor(v) for v in value)


def as_real_tensors(
    given: Mapping[str, Any],
) -> tuple[dict[str, torch.Tensor], torch.dtype, torch.device | None]:
    """All parameters as real tensors, the widest type of the arrays among them, which Python numbers follow, and their
    common device, which is ``None`` where no tensor decides it.
    """
    device = next((value.device for value in given.values() if isinstance(value, torch.Tensor)), None)
    arrays = {name: value for name, value in given.items() if isinstance(value, (torch.Tensor, np.ndarray))}
    dtype = torch.get_default_dtype()
    tensors = {name: _as_real(name, value, device, dtype) for name, value in arrays.items()}
    if tensors:
        dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()))
    numbers = {name: value for name, value in given.items() if name not in arrays}
    tensors |= {name: _as_real(name, value, device, dtype) for name, value in numbers.items()}
    return tensors, dtype, device


def _as_real(name: str, value: Any, device: torch.device | None, dtype: torch.dtype) -> torch.Tensor:
    is_whole_number = isinstance(value, int) and not isinstance(value, bool)
    tensor = as_tensor(name, float(value) if is_whole_number else value, device, dtype)
    if not tensor.is_floating_point():
        raise TypeError(f"{name}: expected a real floating-point tensor, got dtype {tensor.dtype}")
    return tensor


def is_concrete(tensor: torch.Tensor) -> bool:
    """Whether the entries can be looked at: neither ``torch.jit`` nor ``torch.func`` is tracing them."""
    return not torch.jit.is_tracing() and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def in_function_transform() -> bool:
    """Whether this runs inside ``torch.func``, which allows neither ``torch.autograd.grad`` nor saved-tensor hooks."""
    return torch._C._functorch.peek_interpreter_stack() is not None
