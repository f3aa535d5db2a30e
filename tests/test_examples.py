"""Examples run as a user runs them; the main job keeps its promise."""

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


@pytest.mark.pyro
def test_digits_program_runs(tmp_path):
    """In NumPyro the next test runs it whole."""
    output = run("examples/digits_rbm.py", "--backend", "pyro", "--quick", "--quiet", "--out", tmp_path)
    assert "dB" in output
    check_digits_pictures(tmp_path)


def check_digits_pictures(folder):
    for name in PICTURES:
        assert (folder / f"{name}.png").stat().st_size > 5000, name


@pytest.mark.numpyro
@pytest.mark.timeout(1200)
def test_main_job_beats_the_best_gaussian_prior_by_more_than_0_8_db(tmp_path):
    output = run("examples/digits_rbm.py", "--backend", "numpyro", "--quiet", "--out", tmp_path)
    gain = re.search(r"([+-]\d+\.\d+) over Wiener", output)
    assert gain, output
    assert float(gain.group(1)) >= 0.8, output
    check_digits_pictures(tmp_path)


BACKENDS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("numpyro", "pyro")]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "program", ["energy_landscape", "image_patches", "causal_transformer", "vae_digits", "cvae_inpainting"]
)
def test_programs_run_on_both_backends(program, backend, tmp_path):
    run(f"examples/{program}.py", "--backend", backend, "--quick", "--quiet", "--out", tmp_path)
    check_pictures(program, tmp_path)


def check_pictures(program, folder):
    pictures = list(folder.glob(f"{program}*.png"))
    assert pictures
    assert all(picture.stat().st_size > 20_000 for picture in pictures)


@pytest.mark.parametrize("backend", BACKENDS)
def test_exchange_finds_the_posterior_and_the_factor_drifts_away(backend, tmp_path):
    """Exchange and NUTS with Z against the grid, within their errors; without Z, orders of magnitude away."""
    output = run("examples/doubly_intractable.py", "--backend", backend, "--quiet", "--out", tmp_path)
    check_pictures("doubly_intractable", tmp_path)
    rows = {line[:34].strip(): line[34:].split() for line in output.splitlines() if line[34:].strip()}
    mean, deviation = (float(cell) for cell in rows["grid"][:2])
    for name in ("exchange", "NUTS, exact normaliser"):
        assert abs(float(rows[name][3])) < 4.5, output
        assert abs(float(rows[name][1]) / deviation - 1) < 0.05, output
    assert abs(float(rows["NUTS, factor(-energy): wrong"][0])) > 20 * abs(mean), output
    assert "IntractablePartitionError" in output


@pytest.mark.numpyro
@pytest.mark.pyro
@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_benchmarks_find_all_that_they_import(name):
    """They are scripts and no tests: `make bench` runs them."""
    if name == "sampling":
        pytest.importorskip("blackjax")
    assert "usage" in run(f"benchmarks/{name}.py", "--help")
