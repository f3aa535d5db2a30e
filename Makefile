# Every target sets up what it needs in .venv; `make PYTHON=python3.11 test` picks the interpreter.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Two workers, a file of tests each: compilation, not arithmetic, takes most of the time.
WORKERS := --numprocesses 2 --dist loadfile
PYTEST := $(BIN)/python -m pytest $(WORKERS)
INSTALLED := $(VENV)/.installed
EXTRAS := pyro,numpyro,arviz,examples,test

# Tests on an accelerator, in the Python of a machine that has one: first those whose tensors say where they are, then those
# that leave it to torch's default. Expectations stay those of the CPU.
ON_GPU := XLA_PYTHON_CLIENT_PREALLOCATE=false $(PYTHON) -m pytest --numprocesses auto -m "not slow"

# The oldest versions that pyproject.toml admits, and the quick tests that run with them: packages, densities and their
# derivatives, criteria, ArviZ, kernels in both hosts' MCMC, networks of flax and equinox.
FLOORS := .venv-floors
FLOOR_TESTS := tests/test_imports.py tests/test_packaging.py tests/families/test_exact.py \
	tests/families/test_own_family.py tests/families/test_arviz.py tests/families/test_fields.py \
	tests/test_numpyro_ebm/test_kernels.py::test_every_chain_method \
	tests/test_numpyro_ebm/test_host.py::test_networks_as_energies \
	tests/test_pyro_ebm/test_kernels.py::test_pyro_mcmc_runs_every_kernel

.PHONY: demo test test-pyro test-numpyro test-slow test-floors test-gpu mutants lint bench docs clean

$(INSTALLED): pyproject.toml setup.py .ci/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

$(FLOORS)/.installed: pyproject.toml setup.py .ci/constraints.txt .ci/floors.py
	test -x $(FLOORS)/bin/python || $(PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python -m pip install --quiet --upgrade pip
	$(FLOORS)/bin/python .ci/floors.py > $(FLOORS)/constraints.txt
	$(FLOORS)/bin/python -m pip install --quiet --constraint $(FLOORS)/constraints.txt --editable ".[$(EXTRAS)]"
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
	$(PYTEST) --no-loadscope-reorder -m slow

test-gpu:
	PPL_EBM_DEVICE=cuda $(ON_GPU) tests/families tests/test_numpyro_ebm --ignore tests/families/test_fields.py
	PPL_EBM_DEVICE=cuda PPL_EBM_DEFAULT_DEVICE=cuda $(ON_GPU) tests/families/test_fields.py tests/test_pyro_ebm

# Old libraries warn about newer ones beneath them, which is no concern of ours.
test-floors: $(FLOORS)/.installed
	$(FLOORS)/bin/python -m pytest $(WORKERS) --override-ini filterwarnings=default -m "not slow" $(FLOOR_TESTS)

mutants: $(INSTALLED)
	$(BIN)/python tests/mutations/run.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

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
	rm -rf $(VENV) $(FLOORS) out dist docs/_build .jax_cache
