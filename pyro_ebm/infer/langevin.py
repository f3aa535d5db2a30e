"""Langevin kernels: adjusted, unadjusted and underdamped, with preconditioning.

They run in :class:`pyro_ebm.infer.mcmc.BatchedMCMC`, all chains as one batch, and in :class:`pyro.infer.MCMC`. The
transitions are those of :mod:`pyro_ebm.infer.steps`.
"""

import torch

from _ppl_ebm.checks import check_positive, check_positive_int
from pyro_ebm.infer.kernel import BatchedKernel
from pyro_ebm.infer.potential import Potential, PotentialFn, ScoreFn
from pyro_ebm.sampling import steps
from pyro_ebm.sampling.types import Model


class MALA(BatchedKernel):
    """Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996): exact, one gradient per transition.

    The proposal is ``x + 0.5 h^2 A^2 score(x) + h A n`` with the step size h and the diagonal preconditioner A; both
    adapt during warm-up (h by dual averaging) and are then frozen, so that the chain stays exact.

    :param model: a Pyro model with continuous latent sites; or give ``potential_fn``.
    :param potential_fn: minus the log-density of a dict of unconstrained parameters, which have a leading chain
        dimension, as a tensor of shape ``(chains,)``; the driver then needs ``initial_params``.
    :param score: maps the same dict (for a model: its unconstrained sites) to a dict of the gradients of the
        log-density, where there is a cheaper way to them than differentiation.
    :param step_size: initial h, a length (standard deviation).
    :param adapt_step_size: tune h to ``target_accept_prob`` during warm-up.
    :param preconditioner: A from warm-up: ``"gradients"``, one over the root mean square of the score (the step sizes
        of Adam, Kingma & Ba 2015, made a valid sampler by freezing them); ``"variances"``, the standard deviation of
        the positions; or ``None``.
    :param target_accept_prob: 0.574 is optimal in high dimensions (Roberts & Rosenthal 1998).
    :raises ValueError: for a step size that is not positive, an unknown preconditioner, both or neither of ``model``
        and ``potential_fn``.

    >>> import pyro, torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.infer.langevin import MALA
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[1.0], [-1.0]]))
    >>> mcmc = pyro.infer.MCMC(MALA(lambda: pyro.sample("v", rbm)), 50, warmup_steps=100, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples()["v"].shape
    torch.Size([50, 2])
    """

    def _step(
        self, chain: steps.State, target: Potential, step_size: torch.Tensor, scale: torch.Tensor
    ) -> tuple[steps.State, steps.Info]:
        return steps.adjusted_langevin_step(chain, target, step_size, scale)


class ULA(BatchedKernel):
    """Unadjusted Langevin algorithm (Roberts & Tweedie 1996): the proposal of :class:`MALA`, always accepted. Biased.

    The bias is of order ``step_size^2``, see :func:`pyro_ebm.infer.steps.unadjusted_langevin_step`; there is no
    acceptance probability to adapt the step size to. Chains that leave all bounds are reported as diverging.

    :param step_size: h, a length (standard deviation) in the units that the preconditioner leaves.
    :param model: as in :class:`MALA`, and so are ``potential_fn`` and ``score``.
    :param preconditioner: as in :class:`MALA`; default ``None``.

    >>> import torch
    >>> from pyro_ebm.infer.langevin import ULA
    >>> from pyro_ebm.infer.mcmc import BatchedMCMC
    >>> kernel = ULA(potential_fn=lambda z: 0.5 * z["x"]**2, step_size=0.1)
    >>> mcmc = BatchedMCMC(kernel, 50, num_chains=4, initial_params={"x": torch.zeros(4)}, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples(group_by_chain=True)["x"].shape
    torch.Size([4, 50])
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        step_size: float,
        score: ScoreFn | None = None,
        preconditioner: str | None = None,
    ) -> None:
        super().__init__(
            model,
            potential_fn,
            score=score,
            step_size=step_size,
            adapt_step_size=False,
            preconditioner=preconditioner,
        )

    def _step(
        self, chain: steps.State, target: Potential, step_size: torch.Tensor, scale: torch.Tensor
    ) -> tuple[steps.State, steps.Info]:
        return steps.unadjusted_langevin_step(chain, target, step_size, scale)


class UnderdampedLangevin(BatchedKernel):
    """Adjusted underdamped (kinetic) Langevin dynamics (Horowitz 1991): momenta persist between transitions. Exact.

    Each transition refreshes the momentum in part, takes ``num_leapfrog`` leapfrog steps and accepts, or turns around.

    :param model: as in :class:`MALA`, and so are all other arguments.
    :param friction: decay rate of the momentum per unit of time, in units of the preconditioned coordinates.
    :param num_leapfrog: leapfrog steps per transition.
    :param target_accept_prob: high, because a rejection turns the chain around.

    >>> import pyro, torch
    >>> import pyro.distributions as dist
    >>> from pyro_ebm.infer.langevin import UnderdampedLangevin
    >>> from pyro_ebm.infer.mcmc import BatchedMCMC
    >>> kernel = UnderdampedLangevin(lambda: pyro.sample("x", dist.Gamma(2.0, 1.0)), friction=0.5)
    >>> mcmc = BatchedMCMC(kernel, 20, num_chains=4, disable_progbar=True)
    >>> mcmc.run()
    >>> bool((mcmc.get_samples()["x"] > 0).all())
    True
    """

    chain_type = steps.PhaseState

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        friction: float = 1.0,
        num_leapfrog: int = 1,
        score: ScoreFn | None = None,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        preconditioner: str | None = "gradients",
        target_accept_prob: float = 0.9,
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
        )
        self._friction, self._num_leapfrog = friction, num_leapfrog

    def _init_chain(self, chain: steps.State) -> steps.PhaseState:
        return steps.PhaseState(*chain, torch.randn_like(chain.position))

    def _step(
        self, chain: steps.PhaseState, target: Potential, step_size: torch.Tensor, scale: torch.Tensor
    ) -> tuple[steps.PhaseState, steps.Info]:
        return steps.underdamped_step(chain, target, step_size, self._friction, self._num_leapfrog, scale)
