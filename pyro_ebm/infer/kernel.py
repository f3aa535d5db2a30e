"""The base of kernels whose chains are a batch dimension.

A :class:`BatchedKernel` runs in :class:`pyro_ebm.infer.mcmc.BatchedMCMC`, all chains as one batch, and keeps the
contract of :class:`pyro.infer.MCMC`, one chain at a time.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch.distributions.transforms import Transform

from _ppl_ebm.adaptation import PRECONDITIONERS
from _ppl_ebm.calls import show_constructor
from _ppl_ebm.checks import check_positive, check_probability
from _ppl_ebm.states import check_fields
from pyro_ebm.infer.check_model import check_sampled
from pyro_ebm.infer.potential import FunctionPotential, ModelPotential, Potential, PotentialFn, ScoreFn, Values, finite
from pyro_ebm.sampling import steps
from pyro_ebm.sampling.adaptation import AdaptationState, WarmupAdaptation
from pyro_ebm.sampling.types import Model, ModelArgs, ModelKwargs, PyTree


class KernelState(NamedTuple):
    """All that changes from one transition to the next; torch's generator aside, it decides how chains go on.

    :param num_steps: number of transitions so far.
    :param chain: where the chains are, one of the states of :mod:`steps` or the kernel's own.
    :param adaptation: what has been learned.
    :param accept_prob: every chain's mean acceptance probability over the warm-up, or over what came after.
    """

    num_steps: int
    chain: PyTree
    adaptation: AdaptationState
    accept_prob: torch.Tensor

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and tensors."""
        return {**self._asdict(), "chain": self.chain._asdict(), "adaptation": self.adaptation.state_dict()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], chain_type: type) -> "KernelState":
        """The inverse of :meth:`state_dict`, for chains of this type.

        :raises ValueError: for other keys.
        """
        check_fields("state_dict: kernel", state, cls._fields)
        check_fields("state_dict: chain", state["chain"], [*chain_type.__annotations__])
        parts = {
            "chain": chain_type(**state["chain"]),
            "adaptation": AdaptationState.from_state_dict(state["adaptation"]),
        }
        return cls(**{**state, **parts})


class BatchedKernel(MCMCKernel):
    """What the kernels share: target, warm-up and bookkeeping. A member defines ``_step``.

    :param model: a Pyro model with continuous latent sites; or give ``potential_fn``.
    :param potential_fn: minus the log-density of a dict of unconstrained parameters, which have a leading chain
        dimension, as a tensor of shape ``(chains,)``; the driver then needs ``initial_params``.
    :param score: maps the same dict (for a model: its unconstrained sites) to a dict of the gradients of the
        log-density, where there is a cheaper way to them than differentiation.
    :param step_size: the first step size, a length (standard deviation).
    :param adapt_step_size: tune it to ``target_accept_prob`` during warm-up.
    :param preconditioner: lengths of the coordinates from warm-up: ``"gradients"``, one over the root mean square of
        the score; ``"variances"``, the standard deviation of the positions; or ``None``.
    :param target_accept_prob: between 0 and 1.
    :raises ValueError: for a step size that is not positive, an unknown preconditioner, both or neither of ``model``
        and ``potential_fn``.
    """

    #: Of the chains' state.
    chain_type: type = steps.State
    #: Whether the normalisers of observed energies play no part.
    _normalisers_cancel = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        show_constructor(cls)

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        score: ScoreFn | None = None,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        preconditioner: str | None = "gradients",
        target_accept_prob: float = 0.574,
    ) -> None:
        if (model is None) == (potential_fn is None):
            raise ValueError(
                f"model, potential_fn: {type(self).__name__} expected exactly one of them, got {model!r} and "
                f"{potential_fn!r}"
            )
        check_positive("step_size", step_size)
        check_probability("target_accept_prob", target_accept_prob)
        if preconditioner not in PRECONDITIONERS:
            raise ValueError(f"preconditioner: expected one of {PRECONDITIONERS}, got {preconditioner!r}")
        self.model, self.potential_fn = model, potential_fn
        self._score_fn, self._step_size, self._adapt_step_size = score, float(step_size), adapt_step_size
        self._preconditioner, self._target_accept_prob = preconditioner, target_accept_prob
        self.potential: Potential | None = None  #: the target, once it has been prepared
        self.transforms: dict[str, Transform] | None = None
        self._adaptation = self._make_adaptation(0)
        self._initial_params: Values | None = None
        self._state: KernelState | None = None
        self._divergences: list[int] = []

    # ------------------------------------------------------------------ batches of chains

    def _step(
        self, chain: PyTree, target: Potential, step_size: torch.Tensor, scale: torch.Tensor
    ) -> tuple[PyTree, steps.Info]:
        """One transition of all chains."""
        raise NotImplementedError

    def _init_chain(self, chain: steps.State) -> PyTree:
        """The state of chains that start at ``chain``."""
        return chain

    def _first_step_size(self, position: torch.Tensor) -> torch.Tensor:
        """What the warm-up starts with."""
        return position.new_tensor(self._step_size)

    def _accept_probs(self, chain: PyTree, info: steps.Info) -> torch.Tensor:
        """What the step size follows."""
        del chain
        return info.accept_prob

    def _make_potential(self, initial_params: Values | None, args: ModelArgs, kwargs: ModelKwargs) -> Potential:
        """The target for these arguments of the model, or these parameters of the potential."""
        if self.model is not None:
            return ModelPotential(self.model, args, kwargs, self._score_fn)
        assert self.potential_fn is not None
        return FunctionPotential(self.potential_fn, initial_params, self._score_fn)

    def _make_adaptation(self, num_warmup: int) -> WarmupAdaptation:
        """What the warm-up tunes."""
        return WarmupAdaptation(
            num_warmup, self._step_size, self._adapt_step_size, self._target_accept_prob, self._preconditioner
        )

    @property
    def extra_fields(self) -> dict[str, torch.Tensor]:
        """What a kernel has to say of each draw beside acceptance and energy, each with a leading chain dimension."""
        return {}

    def prepare(
        self, num_chains: int, warmup_steps: int, initial_params: Values | None, args: ModelArgs, kwargs: ModelKwargs
    ) -> None:
        """Build the target for these arguments, and check it; forget all earlier chains."""
        self.cleanup()
        if self.model is not None:
            check_sampled(self.model, args, kwargs, cancels=self._normalisers_cancel)
        self.potential = self._make_potential(initial_params, args, kwargs)
        self.transforms = self.potential.transforms
        self.potential.verify(num_chains)
        self._adaptation = self._make_adaptation(warmup_steps)

    def start(self, num_chains: int, initial_params: Values | None) -> None:
        """Put chains at ``initial_params`` (unconstrained, with a leading chain dimension), or at random points."""
        chain = self._target.start(num_chains) if initial_params is None else self._given(num_chains, initial_params)
        adaptation = self._adaptation.init(chain.position, self._first_step_size(chain.position))
        self._state = KernelState(0, self._init_chain(chain), adaptation, torch.zeros_like(chain.log_density))

    @torch.no_grad()
    def advance(self) -> steps.Info:
        """One transition of all chains; while warming up, learn from it."""
        count, chain, adaptation, accept_prob = self.state
        chain, info = self._step(chain, self._target, adaptation.step_sizes, adaptation.scale)
        accept_probs = self._accept_probs(chain, info)
        adaptation = self._adaptation.update(adaptation, count, accept_probs, chain.position, chain.score)
        mean = mean_so_far(accept_prob, info.accept_prob, count, self._adaptation.num_warmup)
        self._state = KernelState(count + 1, chain, adaptation, mean)
        return info

    @property
    def _target(self) -> Potential:
        if self.potential is None:
            raise ValueError(f"{type(self).__name__} has no target yet; expected setup(), or a run of MCMC, first")
        return self.potential

    @property
    def state(self) -> KernelState:
        """Where the chains are, and what they have learned."""
        if self._state is None:
            raise ValueError(f"{type(self).__name__} has no chains yet; expected setup(), or a run of MCMC, first")
        return self._state

    def restore(self, state: KernelState) -> None:
        """Put chains where they were, and check that the target is the one they had."""
        self._target.check_position("resume", state.chain.position)
        found = self._target.unnormalized_log_prob(state.chain.position)
        if not torch.allclose(found, state.chain.log_density, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ValueError("resume: expected the model and arguments of the first run, got another log-density")
        self._state = state

    def _given(self, num_chains: int, initial_params: Values) -> steps.State:
        position = self._target.flatten(initial_params)
        if len(position) != num_chains:
            raise ValueError(f"initial_params: expected {num_chains} chains as leading dimension, got {len(position)}")
        chain = steps.init(self._target, position)
        if not finite(chain).all():
            bad = (~finite(chain)).nonzero()[:, 0].tolist()
            raise ValueError(f"initial_params: expected a finite log-density and score, which chains {bad} do not have")
        return chain

    # ------------------------------------------------------------------ the host's contract, for one chain

    @property
    def initial_params(self) -> Values | None:
        """Unconstrained starting values of one chain."""
        return self._initial_params

    @initial_params.setter
    def initial_params(self, params: Values | None) -> None:
        self._initial_params = params

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Start one chain: at ``initial_params`` if they have been set, else at a random point."""
        given = self._initial_params and {name: torch.as_tensor(v)[None] for name, v in self._initial_params.items()}
        self.prepare(1, warmup_steps, given, args, kwargs)
        self.start(1, given)
        self._initial_params = self._single()

    def sample(self, params: Values) -> dict[str, torch.Tensor]:
        """One transition of one chain from ``params``, which are unconstrained, as is the result."""
        position = self._target.flatten({name: value[None] for name, value in params.items()}, "params")
        if not torch.equal(position, self.state.chain.position):
            self._state = self.state._replace(chain=self._init_chain(steps.init(self._target, position)))
        draw = self.state.num_steps - self._adaptation.num_warmup
        if self.advance().diverging.item() and draw >= 0:
            self._divergences.append(draw)
        return self._single()

    def cleanup(self) -> None:
        """Forget the chains, and the values they started from."""
        self.potential = self._initial_params = self._state = None
        self._divergences = []

    def end_warmup(self) -> None:
        """Freeze what has been learned, if that has not happened already."""
        state = self.state
        if state.num_steps < self._adaptation.num_warmup:
            self._state = state._replace(adaptation=self._adaptation.finish(state.adaptation))
            self._adaptation = self._make_adaptation(state.num_steps)

    def logging(self) -> OrderedDict[str, str]:
        """Step size and mean acceptance probability so far."""
        return OrderedDict(
            [
                ("step size", f"{self.state.adaptation.step_size:.2e}"),
                ("acc. prob", f"{self.state.accept_prob.mean().item():.3f}"),
            ]
        )

    def diagnostics(self) -> dict[str, Any]:
        """Numbers of the draws that diverged, and the mean acceptance probability."""
        return {"divergences": self._divergences, "acceptance rate": self.state.accept_prob.mean().item()}

    def _single(self) -> dict[str, torch.Tensor]:
        return {name: value[0] for name, value in self._target.unflatten(self.state.chain.position).items()}


def mean_so_far(before: torch.Tensor, now: torch.Tensor, index: int, num_warmup: int) -> torch.Tensor:
    """The mean with what transition number ``index`` (from 0) adds; it begins anew after the warm-up."""
    counted = (index if index < num_warmup else index - num_warmup) + 1
    return now if counted == 1 else before + (now - before) / counted
