"""Saved states: files that torch reads without running code of theirs, and states of something else, which are refused.

The oracle of a state is the run without a break, bit for bit.
"""

import copy
import io

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ebm import BernoulliRBM, GaussianBernoulliRBM
from pyro_ebm.infer import (
    HMC,
    MALA,
    NUTS,
    BatchedMCMC,
    BlockGibbs,
    Gibbs,
    Hamiltonian,
    Langevin,
    ParallelTempering,
    UnderdampedLangevin,
    run_chain,
)
from pyro_ebm.objectives import PersistentContrastiveDivergence

pytestmark = pytest.mark.pyro

WEIGHTS = torch.tensor([[1.0, -0.5], [0.3, 2.0], [-1.0, 0.4]], dtype=torch.float64)


def saved(state):
    """As it comes back from a file, by torch's default."""
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def machine(sampler=None, dtype=torch.float64):
    return GaussianBernoulliRBM(WEIGHTS.to(dtype), sampler=sampler)


@pytest.mark.parametrize("sampler", [Gibbs(), Langevin(), Hamiltonian()])
def test_chains_resume_from_a_file(sampler):
    pyro.set_rng_seed(0)
    whole = run_chain(machine(sampler), 8, num_warmup=5, num_chains=3)
    pyro.set_rng_seed(0)
    first, state = run_chain(machine(sampler), 3, num_warmup=5, num_chains=3, return_state=True)
    state = saved(state)
    torch.rand(7)
    rest = run_chain(machine(sampler), 5, resume=state)
    assert torch.equal(torch.cat([first, rest], 1), whole)


@pytest.mark.parametrize("family", [BernoulliRBM, GaussianBernoulliRBM])
def test_persistent_chains_resume_from_a_file(family):
    """They are a tensor: with the generator's state, training goes on as if it had not stopped."""
    chains = torch.zeros(5, 3, dtype=torch.float64)
    advance = lambda tensor, scale: PersistentContrastiveDivergence(family(scale * WEIGHTS), tensor).negative
    advance(chains, 1.0)
    kept = saved({"chains": chains, "generator": torch.get_rng_state()})
    expected = [advance(chains, scale).clone() for scale in (0.9, 0.8)]
    torch.set_rng_state(kept["generator"])
    for scale, other in zip((0.9, 0.8), expected, strict=True):
        assert torch.equal(advance(kept["chains"], scale), other)


def model(size=3, dtype=torch.float64):
    pyro.sample("x", dist.Normal(torch.zeros(size, dtype=dtype), 1.0).to_event(1))


def latent_machine():
    pyro.sample("x", machine())


KERNELS = {
    "MALA": lambda: MALA(model),
    "underdamped": lambda: UnderdampedLangevin(model),
    "HMC": lambda: HMC(model),
    "NUTS": lambda: NUTS(model),
    "tempering": lambda: ParallelTempering(model),
    "gibbs": lambda: BlockGibbs(latent_machine),
}


def mcmc(name, num_chains=2, num_samples=6):
    return BatchedMCMC(KERNELS[name](), num_samples, 4, num_chains, disable_progbar=True)


def state_of(name):
    pyro.set_rng_seed(0)
    run = mcmc(name)
    run.run()
    return run.state_dict()


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_resume_from_a_file(name):
    pyro.set_rng_seed(1)
    whole = mcmc(name, num_samples=10)
    whole.run()
    pyro.set_rng_seed(1)
    part = mcmc(name)
    part.run()
    other = mcmc(name, num_samples=10)
    other.load_state_dict(saved(part.state_dict()))
    torch.rand(3)
    other.resume()
    assert torch.equal(other.get_samples(True)["x"], whole.get_samples(True)["x"])


def _without(*path):
    return lambda state: _at(state, path[:-1]).pop(path[-1])


def _with(*path, value):
    return lambda state: _at(state, path[:-1]).__setitem__(path[-1], value)


def _changed(*path, by):
    return lambda state: _at(state, path[:-1]).__setitem__(path[-1], by(_at(state, path)))


def _at(state, path):
    for key in path:
        state = state[key]
    return state


FOREIGN = {
    "an optimiser's": (
        lambda state: [state.clear(), state.update(state={}, param_groups=[])],
        r"without \['kernel_class'",
    ),
    "no kernel": (_without("kernel"), r"state_dict: .* without \['kernel'\]"),
    "one entry more": (_with("epoch", value=3), r"state_dict: .* with \['epoch'\]"),
    "no adaptation": (_without("kernel", "adaptation"), r"kernel: .* without \['adaptation'\]"),
    "no scale": (_without("kernel", "adaptation", "scale"), r"adaptation: .* without \['scale'\]"),
    "no average": (_without("kernel", "adaptation", "averaging", "count"), r"averaging: .* without \['count'\]"),
    "no moments": (_without("kernel", "adaptation", "moments", "score"), r"moments: .* without \['score'\]"),
    "another chain": (_with("kernel", "chain", "momenta", value=torch.zeros(2)), r"chain: .* with \['momenta'\]"),
    "another kernel": (_with("kernel_class", value="ULA"), "kernel_class="),
    "other chains": (_with("num_chains", value=3), "num_chains=2, got 3"),
    "steps that are none": (_with("kernel", "num_steps", value="10"), "num_steps: expected a non-negative integer"),
    "a list": (_with("kernel", "accept_prob", value=[0.1, 0.2]), "accept_prob: expected a tensor, got list"),
    "a scale of another size": (
        _changed("kernel", "adaptation", "scale", by=lambda t: t[:2]),
        r"scale: expected shape \(3,\)",
    ),
    "a scale of another type": (_changed("kernel", "adaptation", "scale", by=lambda t: t.float()), "scale: .*float32"),
    "fewer chains": (_changed("kernel", "chain", "position", by=lambda t: t[:1]), "position: expected 2 chains"),
    "no generators": (_with("generators", value={}), "generators"),
    "generators of floats": (_with("generators", value={"cpu": torch.zeros(3)}), "generators"),
    "fewer draws": (_changed("draws", by=lambda d: {k: v[:, :2] for k, v in d.items()}), "draws: expected 'position'"),
    "no draws": (_with("draws", value={}), "draws: expected 6"),
    "draws of another size": (
        _changed("draws", "position", by=lambda t: t[..., :1]),
        "draws: position: expected shape",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["MALA", "gibbs"])
def test_states_of_something_else_are_refused(name, kind):
    """By name, and whoever was to take them over is as before: it draws what it would have drawn."""
    spoil, message = FOREIGN[kind]
    state = state_of(name)
    holder = mcmc(name)
    holder.load_state_dict(copy.deepcopy(state))
    foreign = copy.deepcopy(state)
    spoil(foreign)
    with pytest.raises(ValueError, match=message):
        holder.load_state_dict(foreign)
    assert torch.equal(holder.state_dict()["kernel"]["chain"]["position"], state["kernel"]["chain"]["position"])
    assert holder.state_dict().keys() == state.keys()
    holder.resume()
    assert torch.equal(holder.get_samples(True)["x"], state["draws"]["position"])
    with pytest.raises(TypeError, match="state_dict: expected a mapping"):
        holder.load_state_dict([state])


@pytest.mark.parametrize("other", [lambda: model(4), lambda: model(3, torch.float32)])
def test_models_of_other_sizes_or_types_do_not_go_on(other):
    holder = BatchedMCMC(MALA(other), 6, 4, 2, disable_progbar=True)
    holder.load_state_dict(state_of("MALA"))
    with pytest.raises(ValueError, match=r"resume: expected positions of . coordinates, .* got 3, torch.float64"):
        holder.resume()


def test_chains_of_another_sampler_size_or_type_do_not_go_on():
    _, gibbs = run_chain(machine(), 2, num_chains=3, return_state=True)
    _, langevin = run_chain(machine(Langevin()), 2, num_warmup=2, num_chains=3, return_state=True)
    with pytest.raises(TypeError, match="resume: run_chain expected the state of a Langevin chain"):
        run_chain(machine(Langevin()), 2, resume=gibbs)
    with pytest.raises(TypeError, match="resume: run_chain expected the state of a Gibbs chain"):
        run_chain(machine(), 2, resume=langevin)
    for state, sampler in ((gibbs, None), (langevin, Langevin())):
        with pytest.raises(ValueError, match=r"resume: expected positions of torch.float32, got torch.float64"):
            run_chain(machine(sampler, torch.float32), 2, resume=state)
        with pytest.raises(ValueError, match="resume: expected states of torch's generators"):
            run_chain(machine(sampler), 2, resume=state._replace(generator_states={"cpu": torch.zeros(2)}))
    short = langevin._replace(carry=langevin.carry._replace(log_density=torch.zeros(1, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"resume: expected log_density of shape \(3,\)"):
        run_chain(machine(Langevin()), 2, resume=short)
