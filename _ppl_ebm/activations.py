"""Facts about activations that decide whether densities are proper, and how they are integrated.

An activation g grows as :math:`g(u) = s u + O(1)` with a slope ``s`` on each side. Its formulas are its backend's.
"""

import dataclasses
import math

from _ppl_ebm.errors import ImproperDensityError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
    """What is known of an activation g beside its formulas.

    :param name: what messages call it.
    :param slopes: limits of g(u) / u for u to minus and plus infinity; ``None``: not known, and then whether densities
        are proper is the caller's business, and no partition function is computed by quadrature.
    :param limits: limits of g itself where its slope is 0 (the mean value, where it oscillates), else 0.
    :param bound: supremum of abs(g(u) - slope u).
    :param kinks: where g or its derivative jumps.
    :param bends: infimum and supremum of g' between the kinks; ``None``: not known, and then the derivative at 20,001
        inputs in (-100, 100) stands for them.
    :param jump: how far g jumps up, at the most, where it is not continuous.
    :param is_continuous: whether g is; score matching needs that.
    :param is_joint: whether g maps the whole vector at once (softmax).

    >>> GROWTH["relu"].slopes, GROWTH["relu"].is_bounded
    ((0.0, 1.0), False)
    """

    name: str = "custom"
    slopes: tuple[float, float] | None = None
    limits: tuple[float, float] = (0.0, 0.0)
    bound: float = 0.0
    kinks: tuple[float, ...] = ()
    bends: tuple[float, float] | None = None
    jump: float = 0.0
    is_continuous: bool = True
    is_joint: bool = False

    @property
    def is_bounded(self) -> bool:
        """Whether g is known to be bounded, so that a Gaussian term outweighs any sum of its antiderivatives."""
        return self.slopes == (0.0, 0.0)


def leaky_relu(negative_slope: float = 0.01) -> Growth:
    """max(u, 0) + negative_slope min(u, 0)."""
    return Growth(
        name="leaky_relu",
        slopes=(negative_slope, 1.0),
        kinks=(0.0,),
        bends=(min(negative_slope, 1.0), max(negative_slope, 1.0)),
    )


def soft_threshold(threshold: float = 1.0) -> Growth:
    """sign(u) max(abs(u) - threshold, 0)."""
    if not threshold >= 0:
        raise ValueError(f"threshold: expected a number of at least 0, got {threshold!r}")
    return Growth(
        name="soft_threshold", slopes=(1.0, 1.0), bound=threshold, kinks=(-threshold, threshold), bends=_RIGHT
    )


#: Scale and alpha of SELU (Klambauer et al. 2017).
SELU = (1.0507009873554805, 1.6732632423543772)
_FLAT, _RIGHT = (0.0, 0.0), (0.0, 1.0)
_HALF_PI = math.pi / 2
#: What is known of every activation that has a name.
GROWTH = {
    growth.name: growth
    for growth in (
        Growth(name="sigmoid", slopes=_FLAT, limits=(0.0, 1.0), bound=1.0, bends=(0.0, 0.25)),
        Growth(name="tanh", slopes=_FLAT, limits=(-1.0, 1.0), bound=1.0, bends=_RIGHT),
        Growth(name="hard_tanh", slopes=_FLAT, limits=(-1.0, 1.0), bound=1.0, kinks=(-1.0, 1.0), bends=_RIGHT),
        Growth(name="hard_sigmoid", slopes=_FLAT, limits=(0.0, 1.0), bound=1.0, kinks=(-3.0, 3.0), bends=(0.0, 1 / 6)),
        Growth(
            name="step",
            slopes=_FLAT,
            limits=(0.0, 1.0),
            bound=1.0,
            kinks=(0.0,),
            bends=_FLAT,
            jump=1.0,
            is_continuous=False,
        ),
        Growth(name="softsign", slopes=_FLAT, limits=(-1.0, 1.0), bound=1.0, kinks=(0.0,), bends=_RIGHT),
        Growth(name="arctan", slopes=_FLAT, limits=(-_HALF_PI, _HALF_PI), bound=_HALF_PI, bends=_RIGHT),
        Growth(name="probit", slopes=_FLAT, limits=(0.0, 1.0), bound=1.0, bends=(0.0, 1 / math.sqrt(2 * math.pi))),
        Growth(name="sin", slopes=_FLAT, bound=1.0, bends=(-1.0, 1.0)),
        Growth(name="linear", slopes=(1.0, 1.0), bends=(1.0, 1.0)),
        Growth(name="relu", slopes=_RIGHT, kinks=(0.0,), bends=_RIGHT),
        leaky_relu(),
        Growth(name="elu", slopes=_RIGHT, limits=(-1.0, 0.0), bound=1.0, kinks=(0.0,), bends=_RIGHT),
        Growth(
            name="selu",
            slopes=(0.0, SELU[0]),
            limits=(-SELU[0] * SELU[1], 0.0),
            bound=SELU[0] * SELU[1],
            kinks=(0.0,),
            bends=(0.0, SELU[0] * SELU[1]),
        ),
        Growth(name="gelu", slopes=_RIGHT, bound=0.17, bends=(-0.13, 1.13)),
        Growth(name="silu", slopes=_RIGHT, bound=0.28, bends=(-0.1, 1.1)),
        Growth(name="softplus", slopes=_RIGHT, bound=math.log(2), bends=_RIGHT),
        Growth(name="modulus", slopes=(-1.0, 1.0), kinks=(0.0,), bends=(-1.0, 1.0)),
        soft_threshold(),
        Growth(name="softmax", slopes=_FLAT, limits=(0.0, 1.0), bound=1.0, bends=(0.0, 0.5), is_joint=True),
    )
}
_NEVER_PROPER = ("square", "exp")

#: Coefficients of Li2(1 - exp(-w)) = w - w^2 / 4 + sum_n B_2n w^(2n+1) / (2n+1)!, by powers of w^2.
DEBYE = (
    1 / 36,
    -1 / 3600,
    1 / 211680,
    -1 / 10886400,
    1 / 526901760,
    -691 / 16999766784000,
    1 / 1120863744000,
    -3617 / 181400588328960000,
)


def check_name(activation: object) -> str:
    """``activation`` itself, which must be the name of one.

    :raises ImproperDensityError: for activations whose antiderivative outgrows every Gaussian.

    >>> check_name("tanh")
    'tanh'
    """
    if activation in _NEVER_PROPER:
        raise ImproperDensityError(
            f"activation: expected one whose antiderivative grows at most quadratically, got {activation!r}: "
            "exp(-energy) has no integral"
        )
    if not isinstance(activation, str) or activation not in GROWTH:
        raise ValueError(f"activation: expected an Activation or one of {', '.join(GROWTH)}, got {activation!r}")
    return activation
