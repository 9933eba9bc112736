# The commands of a developer and of CI. Each does its own set-up, once.
#
#   make demo    train on handwritten digits, fused beside plain torch
#   make test    lint, types and the whole test suite
#   make bench   the table of timings against torch, NumPy and oneDNN

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := requirements/constraints.txt
PIP_INSTALL := $(BIN)/pip install --quiet -c $(CONSTRAINTS)

.PHONY: demo test lint bench ladder clean

demo: $(VENV)/.ready
	$(BIN)/twolayer train

ladder: $(VENV)/.ready
	$(BIN)/twolayer ladder

test: lint
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/interpreted

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*.h csrc/*.cpp

bench: $(VENV)/.ready
	$(BIN)/python -m benches

# torch comes first and alone, so that nothing pulls another build of it.
$(VENV)/.ready: pyproject.toml setup.py $(CONSTRAINTS) $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) "pip>=25.1"
	$(PIP_INSTALL) torch
	PYTHONWARNINGS="ignore:Editable installation" $(PIP_INSTALL) --group dev --editable ".[cli,triton]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info twolayer_kernels/*.so
