"""What ``pyproject.toml`` cannot say: on other pages, relative links of the README lead to the project's."""

import pathlib
import re
import tomllib

from setuptools import setup

ROOT = pathlib.Path(__file__).parent
LINK = re.compile(r"(!?)(\[[^\]]*\])\(([^)\s]+)\)")


def long_description() -> str:
    """The README, with links and pictures that work on any page."""
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    bases = {"": f"{source}/blob/main", "!": f"{source.replace('github.com', 'raw.githubusercontent.com')}/main"}

    def absolute(link: re.Match[str]) -> str:
        mark, text, target = link.groups()
        is_relative = (ROOT / target.partition("#")[0]).is_file()
        return f"{mark}{text}({bases[mark]}/{target})" if is_relative else link.group()

    return LINK.sub(absolute, (ROOT / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    setup(long_description=long_description(), long_description_content_type="text/markdown")
