# `make demo` and `make test` each make the environment if it is missing, install into it, and run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 3
# A file stays in one worker, for what its tests share; files go in order, the slow ones first; a worker has one thread.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=15
MILVUS_TESTS := -k 'not Faiss and not Exact and not OfThePage' tests/index/milvus tests/index/test_contract.py tests/retrievers/test_milvus_gallery.py
INSTALL_INPUTS := setup.cfg setup.py $(wildcard requirements/*.txt) retrieval/compat.py

.PHONY: demo test test-slow test-milvus test-milvus-slow attack mutants coverage lint check-newest check-oldest test-matrix benchmark gpu clean

demo: $(STAMP)
	$(BIN)/python tools/demo.py

test: $(STAMP)
	$(PYTEST) tests

test-slow: $(STAMP)
	$(PYTEST) tests -m "slow or not slow"

# A real Milvus, installed into .milvus/ and started on loopback, in at most seven minutes. Where its wheel cannot be had
# (another system, no network) a line says so. Four tests at a time, since a server makes a collection in seconds.
test-milvus: $(STAMP)
	timeout --kill-after=20 420 $(BIN)/python tests/index/milvus/server.py .milvus --if-available \
		$(BIN)/python -m pytest -n 4 --dist load -m "not slow" $(MILVUS_TESTS)

# Also what takes minutes: the server is killed, its disk is full, two processes fill a collection.
test-milvus-slow: $(STAMP)
	$(BIN)/python tests/index/milvus/server.py .milvus \
		$(BIN)/python -m pytest -m "slow or not slow" $(MILVUS_TESTS) tests/server/test_shared_index.py \
		tests/commands/test_dump_prototype.py::test_two_processes_killed_midway_fill_a_collection

# Half an hour: kills, damaged files, full disks, drawn cases; writes the table of docs/reliability.md.
attack: $(STAMP)
	$(BIN)/python -m tests.attacks

# Two hundred small changes of the code, of which the tests must notice nine in ten; after `make coverage`, which says
# what tests run what lines.
mutants: $(STAMP)
	$(BIN)/python -m tests.attacks.mutants

coverage: $(STAMP)
	$(PYTEST) tests --cov=retrieval --cov-context=test --cov-report=term --junitxml=.coverage.xml

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

# Each installs into an environment of its own, of several GB, and keeps it.
check-newest check-oldest:
	$(PYTHON) tests/installed/check_install.py $(@:check-%=%)

# Both, and each other Python at hand with the newest: a search, and a part of the tests in each.
test-matrix:
	$(PYTHON) tests/installed/check_install.py matrix

# The constraints name a CPU build of torch; an open request would bring gigabytes of CUDA. Beside
# it torchvision cannot be imported as it is: Python reads the mend at its start, here alone.
$(STAMP): $(INSTALL_INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt -e '.[tests]'
	site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	cp retrieval/compat.py "$$site/_retrieval_compat.py" && \
	echo 'import _retrieval_compat; _retrieval_compat.mend_torchvision_import()' \
		> "$$site/_retrieval_compat.pth"
	touch $(STAMP)

# Ours against every peer; writes docs/benchmarks.md. On an idle machine.
benchmark: $(STAMP)
	$(BIN)/python benchmarks/table.py

# The tests and comparisons that want a GPU, in nine minutes; without one a line says so.
gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py

clean:
	rm -rf $(VENV) .venv-newest* .venv-oldest* build dist *.egg-info
