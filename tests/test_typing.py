"""What mypy must say of wrong calls: every line marked ``# E`` is an error, and no other line is."""

import pathlib
import re

import pytest

WRONG_CALLS = sorted((pathlib.Path(__file__).parent / "typing").glob("wrong_calls_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", WRONG_CALLS, ids=lambda path: path.stem)
def test_wrong_calls_are_reported(path):
    mypy = pytest.importorskip("mypy.api")
    root = path.parents[2]
    output, crashed, _ = mypy.run(["--config-file", str(root / "pyproject.toml"), str(path)])
    assert not crashed
    found = {int(line) for line in re.findall(rf"{path.name}:(\d+): error", output)}
    expected = {number for number, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# E")}
    assert len(expected) > 100
    assert found == expected, output
