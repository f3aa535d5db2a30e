# Every target sets up what it needs in .venv; `make PYTHON=python3.11 test` picks the interpreter.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Two workers, a file of tests each: compilation, not arithmetic, takes most of the time.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-pyro test-numpyro test-slow lint bench docs clean

$(INSTALLED): pyproject.toml .ci/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable ".[pyro,numpyro,arviz,examples,test]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/python examples/digits_rbm.py --backend numpyro --out out

test: $(INSTALLED)
	$(PYTEST) -m "not slow"

test-pyro: $(INSTALLED)
	$(PYTEST) -m "pyro and not numpyro and not slow"

test-numpyro: $(INSTALLED)
	$(PYTEST) -m "numpyro and not pyro and not slow"

test-slow: $(INSTALLED)
	$(PYTEST) -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/rbm.py
	$(BIN)/python benchmarks/scores.py
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/partition.py
	$(BIN)/python benchmarks/vae.py
	$(BIN)/python benchmarks/priors.py

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable ".[docs]"
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) out docs/_build .jax_cache
