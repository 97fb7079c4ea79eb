# make demo: everything end to end on a synthetic sample.   make test: lint and tests.
# make lint, make bench: parts of it.   PYTHON=python3.11 chooses the interpreter of the virtual environment.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
export PYTHONPATH :=
# torch and the workers share two cores on a laptop: threads that wait must not spin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint bench clean

.venv/installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo: .venv/installed
	$(BIN)/python -m benchmarks.demo --out $(DEMO)

test: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed
	$(BIN)/python -m benchmarks.stages

clean:
	rm -rf $(DEMO) .pytest_cache .ruff_cache .hypothesis
