# make demo [SEEDS=3] [ALL=1]   adapt a small video transformer by every method and compare; ALL: single positions too
# make test                     lint and tests
# make install                  .venv alone
# Each makes .venv with the locked versions first, once.
# one that suits: the versions that are tested, and pip
SUITS := import sys, pip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do $$p -c "$(SUITS)" 2>/dev/null && { echo $$p; break; }; done)
SEEDS ?= 1
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# the second version of transformers that tests/petl/test_transformers_4.py puts in front of the locked one
SECOND := $(VENV)/transformers-4/.installed

.PHONY: demo test lint install

demo: $(READY)
	$(BIN)/python tools/demo.py --seeds $(SEEDS) $(if $(ALL),--all)

# one thread for each of the processes that share the cores; the files in the order of tests/conftest.py
test: lint $(SECOND)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(READY)

$(SECOND): requirements/transformers-4.txt | $(READY)
	rm -rf $(@D)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --target $(@D) -r $<
	@touch $@

# Debian without python3-venv cannot put pip into a new environment, so the existing pip installs it.
$(READY): requirements/lock.txt requirements/runtime.txt setup.py
	@$(or $(PYTHON),false) -c "$(SUITS)" || { echo "Python 3.11, 3.12 or 3.13 with pip is needed: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Installing the locked versions into $(VENV) (about 6 GB, once) ..."
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install pip
	$(BIN)/python -m pip install -r requirements/lock.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@
