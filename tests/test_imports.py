"""Each package imports without the other's backend, says what it needs without its own, and adds little time."""

import importlib.util
import os
import pathlib
import pkgutil
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = {
    "numpyro_ebm": ("numpyro", ("torch", "pyro", "pyro_ebm"), ("jax", "numpyro")),
    "pyro_ebm": ("pyro", ("jax", "jaxlib", "numpyro", "flax", "numpyro_ebm"), ("torch", "pyro")),
}
HOSTS = ("jax", "jaxlib", "numpyro", "numpyro_ebm", "torch", "pyro", "pyro_ebm")
LAZY = ("arviz", "matplotlib", "flax", "equinox", "optax", "scipy.stats", "sklearn", "mlxtend", "blackjax")
LIMIT = 0.1  # seconds beyond the host


def run(code, **environment):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    )
    return result.returncode, result.stdout + result.stderr


def packages():
    for package, (host, foreign, own) in PACKAGES.items():
        if importlib.util.find_spec(host):
            yield pytest.param(package, host, foreign, own, marks=getattr(pytest.mark, host), id=package)


def modules_of(name):
    """``name`` and all modules in it, sorted."""
    folder = ROOT / name.replace(".", "/")
    return [name, *sorted(module.name for module in pkgutil.walk_packages([str(folder)], f"{name}."))]


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


@pytest.mark.slow
@pytest.mark.parametrize(("package", "host", "foreign", "own"), list(packages()))
def test_every_module_can_be_imported_first(package, host, foreign, own):
    """With nothing of its package imported before it, not even the package's ``__init__``: no circle is hidden."""
    code, output = run(f"""
        import importlib, sys, types
        for name in {foreign!r}:
            sys.modules[name] = None
        import {host}
        for name in {modules_of(package)[1:]!r}:
            for loaded in [loaded for loaded in sys.modules if loaded.startswith("{package}")]:
                del sys.modules[loaded]
            sys.modules[{package!r}] = types.ModuleType({package!r})
            sys.modules[{package!r}].__path__ = [{str(ROOT / package)!r}]
            importlib.import_module(name)
    """)
    assert code == 0, output


def test_what_both_share_needs_no_host():
    code, output = run(f"""
        import importlib, sys
        for name in {HOSTS!r}:
            sys.modules[name] = None
        for name in {modules_of("_ppl_ebm")!r}:
            importlib.import_module(name)
        print([name for name in {LAZY!r} if name in sys.modules])
    """)
    assert code == 0, output
    assert output.strip() == "[]"


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
    """Under 0.1 s beyond the host (best of five fresh processes, compiled as pip does), and no optional library."""
    times = []
    for attempt in range(6):
        code, output = run(
            f"""
            import sys, time
            import {host}, tqdm.auto
            before = set(sys.modules)
            start = time.process_time()
            import {package}
            print(time.process_time() - start)
            print([name for name in {LAZY!r} if name in set(sys.modules) - before])
            """,
            PYTHONDONTWRITEBYTECODE="",
        )
        assert code == 0, output
        elapsed, loaded = output.strip().splitlines()[-2:]
        assert loaded == "[]"
        if attempt:  # the first one compiles
            times.append(float(elapsed))
            if times[-1] < LIMIT:
                break
    assert min(times) < LIMIT, times
