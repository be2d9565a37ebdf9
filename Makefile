# make demo [SEEDS=3] [ALL=1]   adapt a small video transformer by every method and compare; ALL: single positions too
# make test                     lint and tests
# Each makes .venv with the locked versions first, once.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c "" 2>/dev/null && { echo $$p; break; }; done)
SEEDS ?= 1
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test lint install

demo: $(READY)
	$(BIN)/python tools/demo.py --seeds $(SEEDS) $(if $(ALL),--all)

# one thread for each of the processes that share the cores
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(READY)

# Debian without python3-venv cannot put pip into a new environment, so the pip that is there installs into it.
$(READY): requirements/lock.txt requirements/runtime.txt setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v in ((3, 11), (3, 12)) or sys.exit(f"Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11")'
	@echo "Installing the locked versions into $(VENV) (about 6 GB, once) ..."
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install -r requirements/lock.txt
	$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install --no-deps --no-build-isolation -e .
	@touch $@
