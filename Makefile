# `make demo` and `make test` each make the environment if it is missing, install into it, and run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL_INPUTS := setup.cfg setup.py $(wildcard requirements/*.txt)

.PHONY: demo test test-slow lint clean

demo: $(STAMP)
	$(BIN)/python tools/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest tests --durations=15

test-slow: $(STAMP)
	$(BIN)/python -m pytest tests -m "slow or not slow" --durations=15

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

# The constraints name a CPU build of torch; an open request would bring gigabytes of CUDA.
$(STAMP): $(INSTALL_INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt -e '.[tests]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info
