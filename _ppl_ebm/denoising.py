"""Results and checks of samplers that have a denoiser only."""

from typing import Generic, NamedTuple, TypeVar

from _ppl_ebm.checks import check_count, check_positive, check_positive_int

Array = TypeVar("Array")


class WalkJump(NamedTuple, Generic[Array]):
    """Draws of ``walk_jump``, each of shape ``(chains, draws, *event)``.

    :param noisy: where the walk was: draws of the smoothed density, up to the bias of the steps.
    :param clean: where it jumped to, ``r(noisy)``: least-squares estimates of the clean points, which are not draws of
        the clean density.
    """

    noisy: Array
    clean: Array


def check_run(num_samples: int, num_warmup: int, thinning: int, **scales: float) -> None:
    """Refuse sizes of a run that are no counts, and ``scales`` that are not positive."""
    check_positive_int("num_samples", num_samples)
    check_positive_int("thinning", thinning)
    check_count("num_warmup", num_warmup)
    for name, number in scales.items():
        check_positive(name, number)


def check_bounds(bounds: tuple[float, float] | None) -> None:
    """Refuse bounds that do not increase."""
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds: expected a lower and a higher number, got {bounds!r}")


def check_initial(shape: tuple[int, ...], dtype: object, is_floating: bool) -> None:
    """Refuse starting points that are no floating-point array with a dimension of chains."""
    if not is_floating or not shape:
        raise TypeError(
            f"initial: expected floating-point points of shape (chains, ...), got dtype {dtype} and shape "
            f"{tuple(shape)}"
        )


def check_denoised(expected: tuple[int, ...], got: tuple[int, ...]) -> None:
    """Refuse a denoiser that does not keep the shape of its values."""
    if tuple(got) != tuple(expected):
        raise ValueError(f"denoise: expected a function that keeps the shape {tuple(expected)}, got {tuple(got)}")
