"""Sphinx configuration; `make docs` builds the pages."""

project = "ppl-ebm"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
suppress_warnings = ["myst.xref_missing", "ref.python"]  # the second: names that both packages have
