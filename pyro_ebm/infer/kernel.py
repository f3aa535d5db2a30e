"""The base of kernels whose chains are a batch dimension.

A :class:`BatchedKernel` runs in :class:`pyro_ebm.infer.mcmc.BatchedMCMC`, all chains as one batch, and keeps the
contract of :class:`pyro.infer.MCMC`, one chain at a time.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel

from _ppl_ebm.checks import check_positive, check_probability
from pyro_ebm.infer.potential import FunctionPotential, ModelPotential, Potential, finite
from pyro_ebm.sampling import steps
from pyro_ebm.sampling.adaptation import PRECONDITIONERS, AdaptationState, WarmupAdaptation


class KernelState(NamedTuple):
    """All that changes from one transition to the next; torch's generator aside, it decides how chains go on.

    ``num_steps`` transitions have been made, and ``accept_prob`` is every chain's mean acceptance probability over the
    warm-up, or over what came after.
    """

    num_steps: int
    chain: Any
    adaptation: AdaptationState
    accept_prob: torch.Tensor

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and tensors."""
        return {**self._asdict(), "chain": self.chain._asdict(), "adaptation": self.adaptation.state_dict()}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], chain_type: Any = None) -> "KernelState":
        """The inverse of :meth:`state_dict`, for chains of a type; default: what :mod:`steps` has."""
        kind: Any = chain_type or (steps.PhaseState if "momentum" in state["chain"] else steps.State)
        adaptation = AdaptationState.from_state_dict(state["adaptation"])
        return cls(**{**state, "chain": kind(**state["chain"]), "adaptation": adaptation})


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

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[dict[str, torch.Tensor]], torch.Tensor] | None = None,
        *,
        score: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]] | None = None,
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
        self.transforms: dict[str, Any] | None = None
        self._score_fn, self._step_size, self._adapt_step_size = score, float(step_size), adapt_step_size
        self._preconditioner, self._target_accept_prob = preconditioner, target_accept_prob
        self._potential: Any = None
        self._adaptation: Any = None
        self._initial_params: Any = None
        self._state: KernelState | None = None
        self._divergences: list[int] = []

    # ------------------------------------------------------------------ batches of chains

    _chain_type: Any = None  #: of the chains' state, where it is not one of :mod:`steps`

    def _step(self, chain: Any, target: Potential, step_size: torch.Tensor, scale: torch.Tensor) -> tuple[Any, Any]:
        """One transition of all chains, and its :class:`steps.Info`."""
        raise NotImplementedError

    def _init_chain(self, chain: steps.State) -> Any:
        """The state of chains that start at ``chain``."""
        return chain

    def _make_potential(self, initial_params: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Potential:
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
        self, num_chains: int, warmup_steps: int, initial_params: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Build the target for these arguments, and check it; forget all earlier chains."""
        self.cleanup()
        self._potential = self._make_potential(initial_params, args, kwargs)
        self.transforms = self._potential.transforms
        self._potential.verify(num_chains)
        self._adaptation = self._make_adaptation(warmup_steps)

    def start(self, num_chains: int, initial_params: Mapping[str, torch.Tensor] | None) -> None:
        """Put chains at ``initial_params`` (unconstrained, with a leading chain dimension), or at random points."""
        chain = self._potential.start(num_chains) if initial_params is None else self._given(num_chains, initial_params)
        adaptation = self._adaptation.init(chain.position)
        self._state = KernelState(0, self._init_chain(chain), adaptation, torch.zeros_like(chain.log_density))

    @torch.no_grad()
    def advance(self) -> steps.Info:
        """One transition of all chains; while warming up, learn from it."""
        count, chain, adaptation, accept_prob = self.state
        chain, info = self._step(chain, self._potential, adaptation.step_sizes, adaptation.scale)
        adaptation = self._adaptation.update(adaptation, count, info.accept_prob, chain)
        num_warmup = self._adaptation.num_warmup
        done = count + 1 if count < num_warmup else count + 1 - num_warmup
        mean = info.accept_prob if done == 1 else accept_prob + (info.accept_prob - accept_prob) / done
        self._state = KernelState(count + 1, chain, adaptation, mean)
        return info

    @property
    def state(self) -> KernelState:
        """Where the chains are, and what they have learned."""
        if self._state is None:
            raise ValueError(f"{type(self).__name__} has no chains yet; expected setup(), or a run of MCMC, first")
        return self._state

    def restore(self, state: KernelState) -> None:
        """Put chains where they were, and check that the target is the one they had."""
        found = self._potential.unnormalized_log_prob(state.chain.position)
        if not torch.allclose(found, state.chain.log_density, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ValueError("resume: expected the model and arguments of the first run, got another log-density")
        self._state = state

    def _given(self, num_chains: int, initial_params: Mapping[str, torch.Tensor]) -> steps.State:
        position = self._potential.flatten(initial_params)
        if len(position) != num_chains:
            raise ValueError(f"initial_params: expected {num_chains} chains as leading dimension, got {len(position)}")
        chain = steps.init(self._potential, position)
        if not finite(chain).all():
            bad = (~finite(chain)).nonzero()[:, 0].tolist()
            raise ValueError(f"initial_params: expected a finite log-density and score, which chains {bad} do not have")
        return chain

    # ------------------------------------------------------------------ the host's contract, for one chain

    @property
    def initial_params(self) -> Any:
        """Unconstrained starting values of one chain."""
        return self._initial_params

    @initial_params.setter
    def initial_params(self, params: Any) -> None:
        self._initial_params = params

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Start one chain: at ``initial_params`` if they have been set, else at a random point."""
        given = self._initial_params and {name: torch.as_tensor(v)[None] for name, v in self._initial_params.items()}
        self.prepare(1, warmup_steps, given, args, kwargs)
        self.start(1, given)
        self._initial_params = self._single()

    def sample(self, params: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One transition of one chain from ``params``, which are unconstrained, as is the result."""
        position = self._potential.flatten({name: value[None] for name, value in params.items()}, "params")
        if not torch.equal(position, self.state.chain.position):
            self._state = self.state._replace(chain=self._init_chain(steps.init(self._potential, position)))
        draw = self.state.num_steps - self._adaptation.num_warmup
        if self.advance().diverging.item() and draw >= 0:
            self._divergences.append(draw)
        return self._single()

    def cleanup(self) -> None:
        """Forget the chains, and the values they started from."""
        self._potential = self._adaptation = self._initial_params = self._state = None
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
        return {name: value[0] for name, value in self._potential.unflatten(self.state.chain.position).items()}
