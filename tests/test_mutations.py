"""The mutations that ``make mutants`` tries are there to be made: their data do not rot."""

import importlib.util
import pathlib

RUNNER = pathlib.Path(__file__).parent / "mutations" / "run.py"


def test_every_mutation_can_be_made():
    specification = importlib.util.spec_from_file_location("mutations_run", RUNNER)
    run = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(run)
    found = run.occurrences()
    assert len(found) >= 60
    assert {name: count for name, count in found.items() if count != 1} == {}
    assert all(mutation["find"] != mutation["replace"] for mutation in run.mutations())
    assert all((RUNNER.parents[2] / path).exists() for mutation in run.mutations() for path in mutation["test"])
