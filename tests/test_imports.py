"""Each package imports without the other's backend, says what it needs without its own, and adds little time."""

import importlib.util
import subprocess
import sys
import textwrap

import pytest

PACKAGES = {
    "numpyro_ebm": ("numpyro", ("torch", "pyro"), ("jax", "numpyro")),
    "pyro_ebm": ("pyro", ("jax", "jaxlib", "numpyro", "flax"), ("torch", "pyro")),
}
LAZY = ("arviz", "matplotlib", "flax", "equinox", "optax", "scipy.stats", "sklearn", "mlxtend", "blackjax")
COMMAND = [sys.executable, "-W", "ignore", "-c"]


def run(code):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    return result.returncode, result.stdout + result.stderr


def packages():
    for package, (host, foreign, own) in PACKAGES.items():
        if importlib.util.find_spec(host):
            yield pytest.param(package, host, foreign, own, marks=getattr(pytest.mark, host), id=package)


@pytest.mark.parametrize(("package", "host", "foreign", "own"), list(packages()))
def test_works_without_the_other_backend(package, host, foreign, own):
    example = {
        "numpyro_ebm": "import jax, jax.numpy as n; m.BernoulliRBM(n.ones((2, 1))).sample(jax.random.key(0))",
        "pyro_ebm": "import torch as n; m.BernoulliRBM(n.ones((2, 1))).sample()",
    }[package]
    code, output = run(f"""
        import sys
        for name in {foreign!r}:
            sys.modules[name] = None
        import {package} as m
        {example}
    """)
    assert code == 0, output


@pytest.mark.parametrize(("package", "host", "foreign", "own"), list(packages()))
def test_names_the_extra_when_its_own_backend_is_missing(package, host, foreign, own):
    for missing in own:
        code, output = run(f"""
            import sys
            sys.modules[{missing!r}] = None
            import {package}
        """)
        assert code != 0
        assert f'pip install "ppl-ebm[{host}]"' in output
        assert repr(missing) in output


@pytest.mark.parametrize(("package", "host", "foreign", "own"), list(packages()))
def test_import_is_light(package, host, foreign, own):
    """Under 0.1 s beyond the host (median of five fresh processes), and none of the optional libraries."""
    times = []
    for _ in range(5):
        code, output = run(f"""
            import sys, time
            import {host}, tqdm.auto
            before = set(sys.modules)
            start = time.process_time()
            import {package}
            print(time.process_time() - start)
            print([name for name in {LAZY!r} if name in set(sys.modules) - before])
        """)
        assert code == 0, output
        elapsed, loaded = output.strip().splitlines()[-2:]
        assert loaded == "[]"
        times.append(float(elapsed))
    assert sorted(times)[2] < 0.1, times
