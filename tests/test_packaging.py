"""What goes into a release: links, versions and floors that agree, and archives that hold what they should."""

import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("_ppl_ebm", "numpyro_ebm", "pyro_ebm")
CARRIED = (".ci", "benchmarks", "docs", "examples", "tests", "typings", *PACKAGES)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "_build", ".*_cache", "*.egg-info")


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def targets(text):
    """Where the links and pictures of a page lead, code left out."""
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_and_pictures_exist(page):
    relative = [target for target in targets(page.read_text()) if not re.match(r"https?:|#", target)]
    assert [target for target in relative if not (page.parent / target.partition("#")[0]).exists()] == []


def test_links_of_the_published_readme_work_anywhere():
    published = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["long_description"]()
    own = (ROOT / "README.md").read_text()
    assert [target for target in targets(published) if not target.startswith(("https://", "#"))] == []
    assert len(targets(published)) == len(targets(own))
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", published)
    assert pictures
    assert all(re.fullmatch(r"https://raw\.githubusercontent\.com/[\w/.-]+\.png", picture) for picture in pictures)


def test_versions_agree():
    text = "".join((ROOT / name / "__init__.py").read_text() for name in ("numpyro_ebm", "pyro_ebm"))
    citation = re.search(r"(?m)^version: (.+)$", (ROOT / "CITATION.cff").read_text()).group(1)
    assert {*re.findall(r'__version__ = "(.+)"', text), citation} == {project()["version"]}
    assert f"## {project()['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_requirement_has_one_floor():
    """Which ``make test-floors`` installs; ``.ci/floors.py`` refuses two floors of one package."""
    floors = runpy.run_path(str(ROOT / ".ci" / "floors.py"), run_name="floors")["floors"]()
    groups = [project()["dependencies"], *project()["optional-dependencies"].values()]
    named = {line.partition(">=")[0] for group in groups for line in group}
    assert set(floors) == {name for name in named if not name.startswith("ppl-ebm[")}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The sdist and the wheel of a copy of the tree."""
    pytest.importorskip("setuptools", minversion="77")
    tree, built = tmp_path_factory.mktemp("tree") / "ppl-ebm", tmp_path_factory.mktemp("built")
    tree.mkdir()
    for path in ROOT.iterdir():
        if path.is_dir() and path.name in CARRIED:
            shutil.copytree(path, tree / path.name, ignore=LEFT_OUT)
        elif path.is_file():
            shutil.copy(path, tree)
    build = f"from setuptools import build_meta as b; b.build_sdist({str(built)!r}); b.build_wheel({str(built)!r})"
    result = subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        return tree, in_sdist, set(archive.namelist()), archive.read(metadata).decode()


def test_the_tests_run_from_the_sdist(archives):
    """All that they need is in it: themselves, what they run, what they read, and what they are configured by."""
    tree, in_sdist, _, _ = archives
    needed = {str(path.relative_to(tree)) for name in CARRIED for path in (tree / name).rglob("*") if path.is_file()}
    needed |= {"pyproject.toml", "setup.py", "Makefile", "README.md", "CONTRIBUTING.md", "CITATION.cff", "CHANGELOG.md"}
    assert needed - in_sdist == set()


def test_the_wheel_holds_three_packages_and_their_types(archives):
    _, _, in_wheel, metadata = archives
    folders = {name.partition("/")[0] for name in in_wheel}
    assert {name for name in folders if not name.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{name}/py.typed" for name in PACKAGES} <= in_wheel
    assert {str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py")} <= in_wheel
    for label in ("Homepage", "Documentation", "Source", "Issues", "Changelog"):
        assert f"Project-URL: {label}, https://" in metadata
