"""Markov chain Monte Carlo in Pyro with all chains as one batch: the kernels' base class, and the driver.

Pyro's own :class:`pyro.infer.MCMC` runs one chain a process. Here the chains are a batch dimension of one process: a
transition of a thousand chains costs little more than one of a single chain. A :class:`BatchedKernel` keeps the host's
contract as well, and so runs in :class:`pyro.infer.MCMC`, one chain at a time.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro.infer.mcmc.util as host
import torch
from pyro import poutine
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from tqdm.auto import tqdm

from pyro_ebm.infer import steps
from pyro_ebm.infer.adaptation import PRECONDITIONERS, AdaptationState, WarmupAdaptation
from pyro_ebm.infer.potential import FunctionPotential, ModelPotential, Potential, finite
from pyro_ebm.infer.samplers import check_positive_int


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
        name = type(self).__name__
        if (model is None) == (potential_fn is None):
            raise ValueError(
                f"model, potential_fn: {name} expected exactly one of them, got {model!r} and {potential_fn!r}"
            )
        if not is_number(step_size) or not 0 < step_size < float("inf"):
            raise ValueError(f"step_size: {name} expected a positive number, got {step_size!r}")
        if preconditioner not in PRECONDITIONERS:
            raise ValueError(f"preconditioner: {name} expected one of {PRECONDITIONERS}, got {preconditioner!r}")
        if not is_number(target_accept_prob) or not 0 < target_accept_prob < 1:
            raise ValueError(
                f"target_accept_prob: {name} expected a number between 0 and 1, got {target_accept_prob!r}"
            )
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

    def prepare(
        self, num_chains: int, warmup_steps: int, initial_params: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Build the target for these arguments, and check it; forget all earlier chains."""
        self.cleanup()
        if self.model is not None:
            self._potential = ModelPotential(self.model, args, kwargs, self._score_fn)
            self.transforms = {name: site.transform for name, site in self._potential.sites.items()}
        else:
            assert self.potential_fn is not None
            self._potential = FunctionPotential(self.potential_fn, initial_params, self._score_fn)
            self.transforms = {}
        self._potential.verify(num_chains)
        self._adaptation = WarmupAdaptation(
            warmup_steps, self._step_size, self._adapt_step_size, self._target_accept_prob, self._preconditioner
        )

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
            self._adaptation = WarmupAdaptation(
                state.num_steps, self._step_size, self._adapt_step_size, self._target_accept_prob, self._preconditioner
            )

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


class _Snapshot(NamedTuple):
    """A kernel's state between two transitions, and the generators' that goes with it."""

    kernel: KernelState
    generators: dict[str, torch.Tensor]


class _Draw(NamedTuple):
    """What is kept of a transition, for all chains."""

    position: torch.Tensor
    accept_prob: torch.Tensor
    diverging: torch.Tensor
    potential_energy: torch.Tensor


class BatchedMCMC:
    """Markov chain Monte Carlo with all chains as one batch, on the device of the model's tensors.

    A run that is interrupted (``KeyboardInterrupt``, a notebook's stop button) while it draws warns and keeps what was
    drawn; before the first draw the interrupt is raised. ``resume`` goes on from there, and so it does in another
    process after ``load_state_dict``; the result is bit for bit that of a run without a break.

    :param kernel: one of the kernels of this package: ``MALA``, ``ULA``, ``UnderdampedLangevin``, ``HMC``, ``NUTS``,
        ``BlockGibbs``, ``ParallelTempering`` or ``Exchange``.
    :param num_samples: draws per chain.
    :param warmup_steps: transitions in which the kernel adapts; default ``num_samples``.
    :param num_chains: chains, each an element of the batch.
    :param initial_params: a dict of unconstrained tensors of shape ``(num_chains, *unconstrained_shape)``; default:
        uniform in (-2, 2) in every coordinate.
    :param disable_progbar: show no progress bar.
    :raises TypeError: for another kernel.
    :raises ValueError: for numbers that are no counts; by ``run``, for a model that does not vectorise.

    >>> import pyro, torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.infer.langevin import MALA
    >>> from pyro_ebm.infer.mcmc import BatchedMCMC
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[1.0], [-1.0]]))
    >>> mcmc = BatchedMCMC(MALA(lambda: pyro.sample("v", rbm)), 20, num_chains=100, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples()["v"].shape, mcmc.get_samples(group_by_chain=True)["v"].shape
    (torch.Size([2000, 2]), torch.Size([100, 20, 2]))
    """

    def __init__(
        self,
        kernel: BatchedKernel,
        num_samples: int,
        warmup_steps: int | None = None,
        num_chains: int = 1,
        initial_params: Mapping[str, torch.Tensor] | None = None,
        disable_progbar: bool = False,
    ) -> None:
        if not isinstance(kernel, BatchedKernel):
            raise TypeError(
                f"kernel: BatchedMCMC expected a kernel of pyro_ebm.infer, such as MALA, HMC or NUTS, got {kernel!r}; "
                "Pyro's own kernels run in pyro.infer.MCMC"
            )
        check_positive_int("num_samples", num_samples)
        check_positive_int("num_chains", num_chains)
        warmup_steps = num_samples if warmup_steps is None else warmup_steps
        if isinstance(warmup_steps, bool) or not isinstance(warmup_steps, int) or warmup_steps < 0:
            raise ValueError(f"warmup_steps: expected a non-negative integer, got {warmup_steps!r}")
        self.kernel, self.num_samples, self.warmup_steps = kernel, num_samples, warmup_steps
        self.num_chains, self.initial_params, self.disable_progbar = num_chains, initial_params, disable_progbar
        self._snapshot: _Snapshot | None = None
        self._draws: list[_Draw] = []

    # ------------------------------------------------------------------ running

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Warm up and draw, with these arguments of the model; whatever was drawn before is dropped."""
        self._snapshot, self._draws = None, []
        with poutine.block():
            self.kernel.prepare(self.num_chains, self.warmup_steps, self.initial_params, args, kwargs)
            self.kernel.start(self.num_chains, self.initial_params)
            self._snapshot = _Snapshot(self.kernel.state, _generators(self.kernel.state))
            self._continue()

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Go on with an interrupted or loaded run, up to ``num_samples`` draws; arguments as in :meth:`run`.

        :raises ValueError: if there is nothing to go on with.
        """
        snapshot = self._checked_snapshot("resume")
        with poutine.block():
            self.kernel.prepare(self.num_chains, self.warmup_steps, self.initial_params, args, kwargs)
            self.kernel.restore(snapshot.kernel)
            _set_generators(snapshot.generators)
            self._continue()

    def _continue(self) -> None:
        done, total = self.kernel.state.num_steps, self.warmup_steps + self.num_samples
        del self._draws[max(0, done - self.warmup_steps) :]
        try:
            with tqdm(total=total, initial=done, disable=self.disable_progbar, unit="draw") as progress:
                for index in range(done, total):
                    self._advance(index)
                    if not progress.disable:
                        progress.set_description("Warmup" if index < self.warmup_steps else "Sample", refresh=False)
                        progress.set_postfix(self.kernel.logging(), refresh=False)
                        progress.update()
        except KeyboardInterrupt:
            if not self._num_draws:
                raise
            warnings.warn(
                f"interrupted after {self._num_draws} of {self.num_samples} draws, which are kept; resume() goes on",
                stacklevel=3,
            )

    def _advance(self, index: int) -> None:
        info = self.kernel.advance()
        state = self.kernel.state
        if index >= self.warmup_steps:
            energy = -state.chain.log_density
            self._draws.append(_Draw(state.chain.position, info.accept_prob, info.diverging, energy))
        self._snapshot = _Snapshot(state, _generators(state))  # the draw counts from here on

    @property
    def _num_draws(self) -> int:
        return 0 if self._snapshot is None else max(0, self._snapshot.kernel.num_steps - self.warmup_steps)

    def _checked_snapshot(self, caller: str) -> _Snapshot:
        if self._snapshot is None:
            raise ValueError(f"{caller}: expected a BatchedMCMC that has run or loaded a state, got one without chains")
        return self._snapshot

    # ------------------------------------------------------------------ results

    def _stacked(self) -> _Draw:
        """What was drawn, with the dimensions ``(chain, draw)`` in front."""
        if not self._num_draws:
            raise ValueError("BatchedMCMC has no draws yet; expected run() first")
        return _Draw(*(torch.stack(field, 1) for field in zip(*self._draws[: self._num_draws], strict=True)))

    @torch.no_grad()
    def get_samples(self, group_by_chain: bool = False) -> dict[str, torch.Tensor]:
        """Constrained draws of every site, of shape ``(chain * draw, *shape)``, or ``(chain, draw, *shape)``.

        :param group_by_chain: keep the chains apart.
        """
        draws = self._stacked()
        if self.kernel._potential is None:
            raise ValueError("get_samples: expected resume() first: a loaded state does not know the model's arguments")
        samples = self.kernel._potential.constrain(draws.position)
        return host.select_samples(samples, group_by_chain=group_by_chain)

    def get_extra_fields(self) -> dict[str, torch.Tensor]:
        """``accept_prob``, ``diverging`` and ``potential_energy`` of every draw, each ``(chain, draw)``."""
        fields = self._stacked()._asdict()
        return {name: fields[name] for name in ("accept_prob", "diverging", "potential_energy")}

    def diagnostics(self) -> dict[str, Any]:
        """Effective sample size ``n_eff`` and ``r_hat`` of every site; divergences and acceptance rates of the chains.

        :return: as :meth:`pyro.infer.MCMC.diagnostics`: a dict for every site, and the dicts ``"divergences"`` (numbers
            of the draws) and ``"acceptance rate"`` by chain.
        :raises ValueError: for fewer than four draws.
        """
        if self._num_draws < 4:
            raise ValueError(f"diagnostics: expected at least 4 draws per chain, got {self._num_draws}")
        samples = self.get_samples(group_by_chain=True).items()
        result = host.diagnostics(
            {name: draws if draws.is_floating_point() else draws.double() for name, draws in samples}
        )
        chains = self._diagnostics
        for name in ("divergences", "acceptance rate"):
            result[name] = {f"chain {index}": chain[name] for index, chain in enumerate(chains)}
        return result

    @property
    def _diagnostics(self) -> list[dict[str, Any]]:
        """Every chain's diagnostics, where ``pyro.infer.MCMC`` has them."""
        draws = self._stacked()
        return [
            {"divergences": diverging.nonzero()[:, 0].tolist(), "acceptance rate": rate}
            for diverging, rate in zip(draws.diverging, draws.accept_prob.mean(1).tolist(), strict=True)
        ]

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Draws, chains, what they have learned and torch's generators, as numbers and tensors for ``torch.save``."""
        snapshot = self._checked_snapshot("state_dict")
        return {
            **self._identity(),
            "kernel": snapshot.kernel.state_dict(),
            "generators": snapshot.generators,
            "draws": self._stacked()._asdict() if self._num_draws else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`; ``resume`` goes on from it.

        :raises ValueError: for the state of another kernel, warm-up or number of chains.
        """
        for name, expected in self._identity().items():
            if state[name] != expected:
                raise ValueError(f"state_dict: expected one with {name}={expected!r}, got {state[name]!r}")
        kernel_state = KernelState.from_state_dict(state["kernel"], self.kernel._chain_type)
        self._snapshot = _Snapshot(kernel_state, state["generators"])
        fields = [state["draws"][name].unbind(1) for name in _Draw._fields] if state["draws"] else []
        self._draws = [_Draw(*draw) for draw in zip(*fields, strict=True)]
        self.kernel.cleanup()

    def _identity(self) -> dict[str, Any]:
        return {
            "kernel_class": type(self.kernel).__name__,
            "num_chains": self.num_chains,
            "warmup_steps": self.warmup_steps,
        }


def is_number(value: Any) -> bool:
    """Whether it is an int or a float, and not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _generators(state: KernelState) -> dict[str, torch.Tensor]:
    """States of torch's generators that the chains draw from."""
    device = state.chain.position.device
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[str(device)] = torch.get_device_module(device).get_rng_state(device)
    return states


def _set_generators(states: Mapping[str, torch.Tensor]) -> None:
    for name, state in states.items():
        if name == "cpu":
            torch.set_rng_state(state)
        else:
            torch.get_device_module(name).set_rng_state(state, name)
