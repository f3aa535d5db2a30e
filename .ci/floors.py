"""Constraints for pip that install the oldest version which each requirement of pyproject.toml admits.

``python .ci/floors.py`` prints them: every ``name>=version`` becomes ``name==version``, and what
``.ci/constraints.txt`` pins stays pinned.
"""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parent.parent
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\w.]+)")


def pinned() -> dict[str, str]:
    """What ``.ci/constraints.txt`` holds."""
    lines = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def floors() -> dict[str, str]:
    """The oldest admitted version of every requirement, by name.

    :raises ValueError: for a requirement that is no ``name>=version``, and for two floors of one package.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    found: dict[str, str] = {}
    for requirement in [*project["dependencies"], *extras]:
        if requirement.startswith(f"{project['name']}["):
            continue
        match = REQUIREMENT.fullmatch(requirement)
        if match is None or found.setdefault(match["name"], match["version"]) != match["version"]:
            raise ValueError(f"pyproject.toml: expected one name>=version for each package, got {requirement!r}")
    return found | pinned()


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in sorted(floors().items())))
