"""Markov chain Monte Carlo in Pyro with all chains as one batch.

Pyro's own :class:`pyro.infer.MCMC` runs one chain a process. Here the chains are a batch dimension of one process: a
transition of a thousand chains costs little more than one of a single chain.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyro.infer.mcmc.util as host
import torch
from pyro import poutine
from tqdm.auto import tqdm

from _ppl_ebm.checks import check_count, check_positive_int
from _ppl_ebm.states import check_fields
from pyro_ebm.infer.chains import check_generators, generator_states, set_generator_states
from pyro_ebm.infer.kernel import BatchedKernel, KernelState


class _Snapshot(NamedTuple):
    """A kernel's state between two transitions, and the generators' that goes with it."""

    kernel: KernelState
    generators: dict[str, torch.Tensor]


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
        check_count("warmup_steps", warmup_steps)
        self.kernel, self.num_samples, self.warmup_steps = kernel, num_samples, warmup_steps
        self.num_chains, self.initial_params, self.disable_progbar = num_chains, initial_params, disable_progbar
        self._snapshot: _Snapshot | None = None
        self._draws: list[dict[str, torch.Tensor]] = []

    # ------------------------------------------------------------------ running

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Warm up and draw, with these arguments of the model; whatever was drawn before is dropped."""
        self._snapshot, self._draws = None, []
        with poutine.block():
            self.kernel.prepare(self.num_chains, self.warmup_steps, self.initial_params, args, kwargs)
            self.kernel.start(self.num_chains, self.initial_params)
            self._snapshot = _Snapshot(self.kernel.state, generator_states(self.kernel.state.chain.position.device))
            self._continue()

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Go on with an interrupted or loaded run, up to ``num_samples`` draws; arguments as in :meth:`run`.

        :raises ValueError: if there is nothing to go on with.
        """
        snapshot = self._checked_snapshot("resume")
        with poutine.block():
            self.kernel.prepare(self.num_chains, self.warmup_steps, self.initial_params, args, kwargs)
            self.kernel.restore(snapshot.kernel)
            set_generator_states(snapshot.generators)
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
            fields = {"accept_prob": info.accept_prob, "diverging": info.diverging}
            fields |= {"potential_energy": -state.chain.log_density, **self.kernel.extra_fields}
            self._draws.append({"position": state.chain.position, **fields})
        self._snapshot = _Snapshot(state, generator_states(state.chain.position.device))  # the draw counts from here on

    @property
    def _num_draws(self) -> int:
        return 0 if self._snapshot is None else max(0, self._snapshot.kernel.num_steps - self.warmup_steps)

    def _checked_snapshot(self, caller: str) -> _Snapshot:
        if self._snapshot is None:
            raise ValueError(f"{caller}: expected a BatchedMCMC that has run or loaded a state, got one without chains")
        return self._snapshot

    # ------------------------------------------------------------------ results

    def _stacked(self) -> dict[str, torch.Tensor]:
        """What was drawn, with the dimensions ``(chain, draw)`` in front."""
        if not self._num_draws:
            raise ValueError("BatchedMCMC has no draws yet; expected run() first")
        draws = self._draws[: self._num_draws]
        return {name: torch.stack([draw[name] for draw in draws], 1) for name in draws[0]}

    @torch.no_grad()
    def get_samples(self, group_by_chain: bool = False) -> dict[str, torch.Tensor]:
        """Constrained draws of every site, of shape ``(chain * draw, *shape)``, or ``(chain, draw, *shape)``.

        :param group_by_chain: keep the chains apart.
        """
        draws = self._stacked()
        if self.kernel.potential is None:
            raise ValueError("get_samples: expected resume() first: a loaded state does not know the model's arguments")
        samples = self.kernel.potential.constrain(draws["position"])
        return host.select_samples(samples, group_by_chain=group_by_chain)

    def get_extra_fields(self) -> dict[str, torch.Tensor]:
        """``accept_prob``, ``diverging`` and ``potential_energy`` of every draw, each ``(chain, draw)``.

        :class:`pyro_ebm.infer.tempering.ParallelTempering` adds ``swap_prob`` and ``round_trips``.
        """
        return {name: field for name, field in self._stacked().items() if name != "position"}

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
            for diverging, rate in zip(draws["diverging"], draws["accept_prob"].mean(1).tolist(), strict=True)
        ]

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Draws, chains, what they have learned and torch's generators, as numbers and tensors for ``torch.save``."""
        snapshot = self._checked_snapshot("state_dict")
        return {
            **self._identity(),
            "kernel": snapshot.kernel.state_dict(),
            "generators": snapshot.generators,
            "draws": self._stacked() if self._num_draws else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`; ``resume`` goes on from it.

        Nothing changes where it is refused. A model of other sizes or another type than the state's is refused by
        ``resume``, which knows it.

        :raises TypeError: for anything but a mapping of mappings.
        :raises ValueError: for the state of another kernel, warm-up or number of chains, with missing or unexpected
            entries, or with tensors whose shapes or types contradict each other.
        """
        check_fields("state_dict", state, [*self._identity(), "kernel", "generators", "draws"])
        for name, expected in self._identity().items():
            if state[name] != expected:
                raise ValueError(f"state_dict: expected one with {name}={expected!r}, got {state[name]!r}")
        kernel_state = KernelState.from_state_dict(state["kernel"], self.kernel.chain_type)
        _check_consistent(kernel_state, self.num_chains)
        num_drawn = max(0, kernel_state.num_steps - self.warmup_steps)
        _check_draws(state["draws"], kernel_state.chain.position, num_drawn)
        check_generators("state_dict", state["generators"])
        self._snapshot = _Snapshot(kernel_state, state["generators"])
        fields = {name: field.unbind(1) for name, field in state["draws"].items()}
        num_draws = len(next(iter(fields.values()), ()))
        self._draws = [{name: field[draw] for name, field in fields.items()} for draw in range(num_draws)]
        self.kernel.cleanup()

    def _identity(self) -> dict[str, Any]:
        return {
            "kernel_class": type(self.kernel).__name__,
            "num_chains": self.num_chains,
            "warmup_steps": self.warmup_steps,
        }


def _check_consistent(state: KernelState, num_chains: int) -> None:
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
        _check_tensor(f"state_dict: {name}", leaf, tuple(shape), like.dtype)


def _check_draws(draws: Mapping[str, Any], like: torch.Tensor, num_drawn: int) -> None:
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
        _check_tensor("state_dict: draws: position", draws["position"], shape, like.dtype)


def _check_tensor(name: str, leaf: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(leaf.shape) != shape or leaf.dtype != dtype:
        raise ValueError(f"{name}: expected shape {shape} and {dtype}, got {tuple(leaf.shape)} and {leaf.dtype}")


def _leaves(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """All parts of nested dictionaries, by name."""
    if not isinstance(tree, dict):
        yield name, tree
        return
    for key, part in tree.items():
        yield from _leaves(f"{name}: {key}", part)
