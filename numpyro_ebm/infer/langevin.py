"""Langevin kernels for :class:`numpyro.infer.MCMC`: adjusted, unadjusted and underdamped, with preconditioning.

Their transitions are those of :mod:`numpyro_ebm.infer.steps`, their contract with the host is the base's.
"""

from collections.abc import Callable

import jax
from numpyro.infer import init_to_uniform

from _ppl_ebm.checks import check_positive, check_positive_int
from numpyro_ebm.infer.kernel import GradientKernel
from numpyro_ebm.infer.potential import PotentialFn
from numpyro_ebm.sampling import steps
from numpyro_ebm.sampling.protocols import Target
from numpyro_ebm.sampling.types import Key, Model, PyTree


class MALA(GradientKernel):
    """Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996): exact, one gradient per transition.

    The proposal is ``x + 0.5 h^2 A^2 score(x) + h A n`` with the step size h and the diagonal preconditioner A; both
    adapt during warm-up (h by dual averaging) and are then frozen, so that the chain stays exact.

    :param model: a NumPyro model; or give ``potential_fn``.
    :param potential_fn: minus the log-density of unconstrained parameters, with ``init_params`` given to ``run``.
    :param score: gradient of the log-density in the unconstrained sites, of the same structure as they, where there is
        a cheaper way to it than differentiation.
    :param step_size: initial h, a length (standard deviation).
    :param adapt_step_size: tune h to ``target_accept_prob`` during warm-up.
    :param preconditioner: A from warm-up: ``"gradients"``, one over the root mean square of the gradient (the step
        sizes of Adam, Kingma & Ba 2015, made a valid sampler by freezing them); ``"variances"``, the standard deviation
        of the positions; or ``None``.
    :param target_accept_prob: 0.574 is optimal in high dimensions (Roberts & Rosenthal 1998).
    :param init_strategy: of :mod:`numpyro.infer.initialization`.
    :raises ValueError: for a step size that is not positive, an unknown preconditioner, both or neither of ``model``
        and ``potential_fn``.

    >>> import jax, jax.numpy as jnp, numpyro
    >>> from numpyro.infer import MCMC
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> from numpyro_ebm.infer import MALA
    >>> rbm = GaussianBernoulliRBM(jnp.array([[1.0], [-1.0]]))
    >>> mcmc = MCMC(MALA(lambda: numpyro.sample("v", rbm)), num_warmup=100, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0))
    >>> mcmc.get_samples()["v"].shape
    (50, 2)
    """

    def _step(
        self, rng_key: Key, chain: steps.State, target: Target, step_size: jax.Array, scale: jax.Array
    ) -> tuple[steps.State, steps.Info]:
        return steps.adjusted_langevin_step(rng_key, chain, target, step_size, scale)


class ULA(GradientKernel):
    """Unadjusted Langevin algorithm (Roberts & Tweedie 1996): the proposal of :class:`MALA`, always accepted. Biased.

    The bias is of order ``step_size^2``, see :func:`numpyro_ebm.infer.steps.unadjusted_langevin_step`; there is no
    acceptance probability to adapt the step size to. Chains that leave all bounds are reported as diverging.

    :param step_size: h, a length (standard deviation) in the units that the preconditioner leaves.
    :param model: as in :class:`MALA`, and so are ``potential_fn``, ``score`` and ``init_strategy``.
    :param preconditioner: as in :class:`MALA`; default ``None``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from numpyro_ebm.infer import ULA
    >>> kernel = ULA(potential_fn=lambda x: 0.5 * x**2, step_size=0.3)
    >>> mcmc = MCMC(kernel, num_warmup=10, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), init_params=jnp.array(0.0))
    >>> mcmc.get_samples().shape
    (50,)
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        step_size: float,
        score: Callable[[PyTree], PyTree] | None = None,
        preconditioner: str | None = None,
        init_strategy: Callable[..., PyTree] = init_to_uniform,
    ) -> None:
        super().__init__(
            model,
            potential_fn,
            score=score,
            step_size=step_size,
            adapt_step_size=False,
            preconditioner=preconditioner,
            init_strategy=init_strategy,
        )

    def _step(
        self, rng_key: Key, chain: steps.State, target: Target, step_size: jax.Array, scale: jax.Array
    ) -> tuple[steps.State, steps.Info]:
        return steps.unadjusted_langevin_step(rng_key, chain, target, step_size, scale)


class UnderdampedLangevin(GradientKernel):
    """Adjusted underdamped (kinetic) Langevin dynamics (Horowitz 1991): momenta persist between transitions. Exact.

    Each transition refreshes the momentum in part, takes ``num_leapfrog`` leapfrog steps and accepts, or turns around.

    :param model: as in :class:`MALA`, and so are all other arguments.
    :param friction: decay rate of the momentum per unit of time, in units of the preconditioned coordinates.
    :param num_leapfrog: leapfrog steps per transition.
    :param target_accept_prob: high, because a rejection turns the chain around.

    >>> import jax, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_ebm.infer import UnderdampedLangevin
    >>> kernel = UnderdampedLangevin(lambda: numpyro.sample("x", dist.Gamma(2.0, 1.0)), friction=0.5)
    >>> mcmc = MCMC(kernel, num_warmup=50, num_samples=20, progress_bar=False)
    >>> mcmc.run(jax.random.key(0))
    >>> bool((mcmc.get_samples()["x"] > 0).all())
    True
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        friction: float = 1.0,
        num_leapfrog: int = 1,
        score: Callable[[PyTree], PyTree] | None = None,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        preconditioner: str | None = "gradients",
        target_accept_prob: float = 0.9,
        init_strategy: Callable[..., PyTree] = init_to_uniform,
    ) -> None:
        check_positive("friction", friction)
        check_positive_int("num_leapfrog", num_leapfrog)
        super().__init__(
            model,
            potential_fn,
            score=score,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            preconditioner=preconditioner,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
        )
        self._friction, self._num_leapfrog = friction, num_leapfrog

    def _init_chain(self, rng_key: Key, chain: steps.State) -> steps.PhaseState:
        return steps.PhaseState(*chain, jax.random.normal(rng_key, chain.position.shape, chain.position.dtype))

    def _step(
        self, rng_key: Key, chain: steps.PhaseState, target: Target, step_size: jax.Array, scale: jax.Array
    ) -> tuple[steps.PhaseState, steps.Info]:
        return steps.underdamped_step(rng_key, chain, target, step_size, self._friction, self._num_leapfrog, scale)
