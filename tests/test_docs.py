"""Everything that is shown is run: doctests of both packages, and every Python block of README and docs."""

import doctest
import importlib
import importlib.util
import pathlib
import pkgutil
import re

import pytest

import _ppl_ebm

ROOT = pathlib.Path(__file__).parent.parent
HOSTS = {"numpyro_ebm": "numpyro", "pyro_ebm": "pyro"}
#: What JAX takes long to compile belongs to the slow suite.
SLOW_MODULES = ("infer", "variational", "diagnostics", "testing")
FAST_PAGES = ("README.md",)


def doctest_modules():
    for module in pkgutil.iter_modules(_ppl_ebm.__path__, "_ppl_ebm."):
        yield module.name
    for package, host in HOSTS.items():
        if importlib.util.find_spec(host):
            found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
            for module in found:
                slow = host == "numpyro" and module.name.split(".")[1] in SLOW_MODULES
                marks = [getattr(pytest.mark, host), *([pytest.mark.slow] if slow else [])]
                yield pytest.param(module.name, marks=marks)


@pytest.mark.parametrize("name", list(doctest_modules()))
def test_doctests(name):
    """Docstrings show what a user sees in the host's default precision."""
    with default_precision():
        results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def code_blocks():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)):
            marks = [
                getattr(pytest.mark, host) for package, host in HOSTS.items() if re.search(rf"\b{package}\b", block)
            ]
            slow = [] if path.name in FAST_PAGES else [pytest.mark.slow]
            yield pytest.param(block, id=f"{path.name}-{number}", marks=[*marks, *slow])


@pytest.mark.parametrize("block", list(code_blocks()))
def test_code_blocks(block, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with default_precision():
        exec(compile(block, "documentation", "exec"), {"__name__": "documentation"})


def test_every_public_class_and_function_has_an_example():
    for package, host in HOSTS.items():
        if not importlib.util.find_spec(host):
            continue
        module = importlib.import_module(package)
        exempt = {"EnergyDistribution", "Criterion", "ImproperDensityError", "IntractablePartitionError"}
        exempt |= {"Ancestral", "Exact", "Gibbs", "Langevin", "Hamiltonian", "steps"}
        exempt |= {
            "ChainState",
            "LogPartitionBounds",
            "WalkJump",
            "ELBODecomposition",
            "InferenceGap",
            "RefinedPosterior",
        }  # what functions with examples return
        for part in ("distributions", "infer", "objectives", "diagnostics", "testing", "variational"):
            for name in getattr(module, part).__all__:
                documentation = getattr(getattr(module, part), name).__doc__
                assert documentation, name
                assert ">>>" in documentation or name in exempt, name


class default_precision:
    """JAX without the tests' float64 and rank rules; torch needs nothing."""

    def __enter__(self):
        if importlib.util.find_spec("jax"):
            import jax

            jax.config.update("jax_enable_x64", False)
            jax.config.update("jax_numpy_rank_promotion", "allow")

    def __exit__(self, *exception):
        if importlib.util.find_spec("jax"):
            import jax

            jax.config.update("jax_enable_x64", True)
            jax.config.update("jax_numpy_rank_promotion", "raise")
