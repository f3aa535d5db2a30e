"""Running Markov chains of a distribution's own transitions, outside the host's ``MCMC``."""

from typing import Any

import torch
from tqdm.auto import tqdm

from pyro_ebm.infer.samplers import Exact, check_positive_int, check_sampler


@torch.no_grad()
def run_chain(
    distribution: Any,
    num_samples: int,
    *,
    num_warmup: int = 0,
    thinning: int = 1,
    num_chains: int = 1,
    initial: Any = None,
    sampler: Any = None,
    progress: bool = False,
) -> torch.Tensor:
    """Draws along the distribution's Markov chain: all batch elements and chains advance as one batch, detached.

    :param distribution: an energy distribution.
    :param num_samples: draws kept per chain.
    :param num_warmup: transitions run first and thrown away; the step size of a Langevin or Hamiltonian sampler is
        tuned in them unless it was given.
    :param thinning: transitions per kept draw.
    :param num_chains: independent chains.
    :param initial: starting points, shape ``(num_chains, *batch_shape, *event_shape)``; default: the family's.
    :param sampler: ``Gibbs()``, ``Langevin()`` or ``Hamiltonian()``; default: the distribution's chain.
    :param progress: show a tqdm progress bar.
    :return: shape ``(num_chains, num_samples, *batch_shape, *event_shape)``, as ArviZ expects.

    >>> import torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.infer import run_chain
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[1.0], [-1.0]]))
    >>> run_chain(rbm, 10, num_warmup=5, num_chains=3).shape
    torch.Size([3, 10, 2])
    """
    for name, number in (("num_samples", num_samples), ("thinning", thinning), ("num_chains", num_chains)):
        check_positive_int(name, number)
    if isinstance(num_warmup, bool) or not isinstance(num_warmup, int) or num_warmup < 0:
        raise ValueError(f"num_warmup: expected a non-negative integer, got {num_warmup!r}")
    sampler = distribution.chain if sampler is None else sampler
    if isinstance(sampler, Exact):
        raise TypeError("sampler: run_chain expected a Markov chain such as Gibbs(), got Exact()")
    check_sampler(distribution, sampler)
    position = _start(distribution, num_chains, initial)
    target, tuning = distribution._frozen(), None
    if num_warmup:
        position, tuning = sampler.tune(target, position, num_warmup)
    kept = []
    for _ in tqdm(range(num_samples), disable=not progress, desc="sampling", unit="draw"):
        position = sampler.run(target, position, thinning, tuning)
        kept.append(position)
    return torch.stack(kept, 1)


def _start(distribution: Any, num_chains: int, initial: Any) -> torch.Tensor:
    shape = (num_chains, *distribution.batch_shape)
    if initial is None:
        return distribution._frozen()._initial(shape)
    position = distribution._check_value(initial, "initial").detach()
    if position.shape != shape + distribution.event_shape:
        raise ValueError(f"initial: expected shape {(*shape, *distribution.event_shape)}, got {tuple(position.shape)}")
    return position
