"""Examples and benchmarks run as a user runs them; the main job keeps its promise."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PICTURES = ("fantasies", "filters", "denoising", "inpainting", "trace", "digits_rbm")
NEEDED = ("mlxtend", "sklearn", "skimage", "matplotlib", "arviz", "optax")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDED)), reason="the examples extra is not installed"),
]


def run(*command):
    result = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("numpyro", "pyro")]
)
def test_digits_program_runs_on_both_backends(backend, tmp_path):
    output = run("examples/digits_rbm.py", "--backend", backend, "--quick", "--quiet", "--out", tmp_path)
    assert "dB" in output
    for name in PICTURES:
        assert (tmp_path / f"{name}.png").stat().st_size > 5000, name


@pytest.mark.numpyro
@pytest.mark.timeout(1200)
def test_main_job_beats_the_best_gaussian_prior_by_more_than_0_8_db(tmp_path):
    output = run("examples/digits_rbm.py", "--backend", "numpyro", "--quiet", "--out", tmp_path)
    gain = re.search(r"([+-]\d+\.\d+) over Wiener", output)
    assert gain, output
    assert float(gain.group(1)) >= 0.8, output


BACKENDS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("numpyro", "pyro")]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("program", ["energy_landscape", "image_patches", "causal_transformer"])
def test_programs_run_on_both_backends(program, backend, tmp_path):
    run(f"examples/{program}.py", "--backend", backend, "--quick", "--quiet", "--out", tmp_path)
    pictures = list(tmp_path.glob(f"{program}*.png"))
    assert pictures
    assert all(picture.stat().st_size > 20_000 for picture in pictures)


@pytest.mark.numpyro
@pytest.mark.pyro
def test_scores_benchmark_runs():
    output = run("benchmarks/scores.py", "--visible", 16, "--hidden", 16, "--chains", 4)
    assert len(re.findall(r"(?m)^\w+(?:RBM|StudentT|Autoencoder) ", output)) >= 17, output


@pytest.mark.numpyro
@pytest.mark.pyro
def test_benchmark_runs():
    output = run("benchmarks/rbm.py", "--quick")
    for name in ("scikit-learn", "NumPyro, SVI", "Pyro, torch.optim", "Pyro, SVI", "ratio"):
        assert name in output
