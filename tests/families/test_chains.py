"""Long runs: progress, interrupts, resuming bit for bit, and chains spread over devices and processes."""

import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from backends import except_numpyro, pairs
from families.cases import make, parameters
from oracles.statistics import assert_mean, assert_moments

ROOT = pathlib.Path(__file__).parents[2]
SAMPLERS = ["Gibbs", "Hamiltonian", "Langevin"]


def machine(backend):
    return make(backend, "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM"))


def run(backend, *arguments, seed=0, **options):
    """``run_chain`` with a key where the backend wants one."""
    if backend.name == "numpyro":
        import jax

        key = None if "resume" in options else jax.random.key(seed)
        return backend.infer.run_chain(key, *arguments, **options)
    import torch

    torch.manual_seed(seed)
    return backend.infer.run_chain(*arguments, **options)


@pytest.mark.parametrize(*pairs(SAMPLERS, slow=except_numpyro(SAMPLERS, ["Gibbs"])), indirect=["backend"])
def test_resuming_is_one_long_run(backend, name):
    """Also from a state that was pickled, and whatever the generator did in between."""
    distribution, sampler = machine(backend), getattr(backend.infer, name)()
    options = {"num_chains": 3, "sampler": sampler, "thinning": 2}
    long = backend.numpy(run(backend, distribution, 30, num_warmup=20, **options))
    first, state = run(backend, distribution, 10, num_warmup=20, return_state=True, **options)
    state = pickle.loads(pickle.dumps(state))
    assert state.num_drawn == 10
    second, state = run(backend, distribution, 15, resume=state, return_state=True, seed=5, **options)
    third = run(backend, distribution, 5, resume=state, seed=6, **options)
    np.testing.assert_array_equal(np.concatenate([*map(backend.numpy, (first, second, third))], 1), long)


def test_progress_is_shown_and_changes_nothing(backend, capsys):
    distribution = machine(backend)
    quiet = backend.numpy(run(backend, distribution, 120, num_warmup=5, num_chains=2))
    assert capsys.readouterr().err == ""
    shown = backend.numpy(run(backend, distribution, 120, num_warmup=5, num_chains=2, progress=True))
    assert "sampling" in capsys.readouterr().err
    np.testing.assert_array_equal(shown, quiet)


def test_an_interrupt_keeps_what_was_drawn(backend, monkeypatch):
    distribution = machine(backend)
    whole = backend.numpy(run(backend, distribution, 100, num_chains=2, progress=True))
    module = sys.modules[f"{backend.ebm.__name__}.infer.chains"]
    if backend.name == "numpyro":
        collect, calls = module._collect, []

        def interrupted(*arguments):
            if len(calls) == 20:
                raise KeyboardInterrupt
            calls.append(1)
            return collect(*arguments)

        monkeypatch.setattr(module, "_collect", interrupted)
        num_kept = 40
    else:
        Gibbs, calls = backend.infer.Gibbs, []
        sweep = Gibbs.advance

        def interrupted(*arguments):
            if len(calls) == 40:
                raise KeyboardInterrupt
            calls.append(1)
            return sweep(*arguments)

        monkeypatch.setattr(Gibbs, "advance", interrupted)
        num_kept = 40
    with pytest.warns(RuntimeWarning, match="40 draws are kept"):
        kept, state = run(backend, distribution, 100, num_chains=2, progress=True, return_state=True)
    monkeypatch.undo()
    np.testing.assert_array_equal(backend.numpy(kept), whole[:, :num_kept])
    rest = run(backend, distribution, 100 - num_kept, num_chains=2, resume=state)
    np.testing.assert_array_equal(backend.numpy(rest), whole[:, num_kept:])


def test_what_cannot_be_resumed(backend):
    distribution = machine(backend)
    _, state = run(backend, distribution, 2, return_state=True)
    with pytest.raises(TypeError, match="resume"):
        run(backend, distribution, 2, resume=(1, 2, 3))
    with pytest.raises(ValueError, match="resume"):
        run(backend, distribution, 2, resume=state, num_warmup=3)
    with pytest.raises(ValueError, match="num_chains: run_chain expected that of the state to resume, 1, got 3"):
        run(backend, distribution, 2, resume=state, num_chains=3)
    with pytest.raises(TypeError, match="Hamiltonian"):
        run(backend, distribution, 2, resume=state, sampler=backend.infer.Hamiltonian())
    other = make(backend, "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM", visible=5))
    with pytest.raises(ValueError, match="resume"):
        run(backend, other, 2, resume=state)


def test_a_chain_goes_on_in_another_model(backend):
    """Of the same shapes: by its densities, also at the chains that reject their first proposal."""
    other = make(backend, "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM", seed=9))
    options = {"sampler": backend.infer.Hamiltonian(num_leapfrog=2, step_size=1.5), "num_chains": 200}
    _, state = run(backend, machine(backend), 2, return_state=True, **options)
    draws, state = run(backend, other, 1, resume=state, return_state=True, **options)
    np.testing.assert_allclose(state.carry.log_density, -backend.numpy(other.energy(draws[:, 0])), rtol=1e-10)


@pytest.mark.parametrize(*pairs(SAMPLERS, slow=except_numpyro(SAMPLERS, ["Gibbs"])), indirect=["backend"])
def test_draws_do_not_share_their_random_numbers(backend, name):
    """Without couplings a sweep forgets everything, and a long trajectory nearly so; the same noise twice would not."""
    normal = backend.distributions.GaussianBernoulliRBM(backend.array(np.zeros((2, 1))))
    sampler = getattr(backend.infer, name)()
    draws = backend.numpy(run(backend, normal, 4, num_warmup=60, num_chains=4000, thinning=12, sampler=sampler))
    assert_mean(draws[:, -1] ** 2, 1.0)
    for lag in (1, 2, 3):
        correlation = np.mean(draws[:, 0] * draws[:, lag])
        assert abs(correlation) < (0.3 if name == "Langevin" else 0.1)


def script(body, *arguments, **environment):
    command = [sys.executable, "-c", body, *map(str, arguments)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]


SHARDED = """
import sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from backends import get_backend
from families.cases import make, parameters
from numpyro_ebm.infer import Gibbs, Hamiltonian, run_chain
distribution = make(get_backend("numpyro"), "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM"))
assert len(jax.devices()) == 4
options = {"num_warmup": 30, "num_chains": 4000, "thinning": 5}
key = jax.random.key(0)
for sampler in (Gibbs(), Hamiltonian(num_leapfrog=3)):
    alone = run_chain(key, distribution, 4, sampler=sampler, **options)
    spread = run_chain(key, distribution, 4, sampler=sampler, devices=jax.devices(), **options)
    assert len(alone.sharding.device_set) == 1 and len(spread.sharding.device_set) == 4
    assert {shard.data.shape[0] for shard in spread.addressable_shards} == {1000}
    if sampler == Gibbs():
        np.testing.assert_allclose(spread, alone, rtol=1e-9)
    np.save(f"{sys.argv[1]}/{type(sampler).__name__}.npy", np.asarray(spread[:, -1]))
try:
    run_chain(key, distribution, 2, num_chains=6, devices=jax.devices())
except ValueError as error:
    assert "devices" in str(error)
else:
    raise AssertionError("6 chains on 4 devices")
"""


@pytest.mark.slow
@pytest.mark.numpyro
def test_chains_over_four_devices(tmp_path):
    """Forced host devices: each has a quarter of the chains, and Gibbs draws are those of one device."""
    from backends import get_backend

    script(SHARDED, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=4", JAX_PLATFORMS="cpu")
    distribution = machine(get_backend("numpyro"))
    for name in ("Gibbs", "Hamiltonian"):
        draws = np.load(tmp_path / f"{name}.npy")
        assert_moments(draws, np.asarray(distribution.mean), np.asarray(distribution.covariance_matrix), power=0.15)


DISTRIBUTED = """
import sys
import numpy as np, pyro, torch
import torch.distributed as processes
from backends import get_backend
from families.cases import make, parameters
from pyro_ebm.infer import Hamiltonian, run_chain
torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
processes.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
distribution = make(get_backend("pyro"), "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM"))
pyro.set_rng_seed(rank)
group = processes.group.WORLD
draws = run_chain(distribution, 3, num_warmup=40, num_chains=4000, sampler=Hamiltonian(num_leapfrog=3), group=group)
assert draws.shape == (4000, 3, 3)
pyro.set_rng_seed(rank)
own = run_chain(distribution, 3, num_warmup=40, num_chains=2000, sampler=Hamiltonian(num_leapfrog=3))
assert (draws[2000 * rank : 2000 * (rank + 1)] == own).all()
np.save(f"{folder}/{rank}.npy", draws[:, -1].numpy())
try:
    run_chain(distribution, 2, num_chains=5, group=group)
except ValueError as error:
    assert "group" in str(error)
else:
    raise AssertionError("5 chains in 2 processes")
processes.destroy_process_group()
"""


@pytest.mark.pyro
def test_chains_over_two_processes(tmp_path):
    """Gloo: each process runs half of the chains, and all get all draws."""
    from backends import get_backend

    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), "PPL_EBM_DEVICE": "cpu"}
    commands = [[sys.executable, "-c", DISTRIBUTED, str(rank), str(tmp_path)] for rank in range(2)]
    started = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], "".join(errors)[-3000:]
    first, second = (np.load(tmp_path / f"{rank}.npy") for rank in range(2))
    np.testing.assert_array_equal(first, second)
    distribution = machine(get_backend("pyro"))
    assert_moments(first, distribution.mean.numpy(), distribution.covariance_matrix.numpy(), power=0.15)
    assert np.abs(first[:2000] - first[2000:]).min(1).max() > 0.1  # the processes drew different chains
