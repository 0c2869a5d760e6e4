# Targets make what they need in .venv (floors: in .venv-floors), and reuse it the next time.
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
FLOORS := .venv-floors
# The lowest torch is asked for by name: torchvision, which timm brings, would draw in the newest.
TORCH_FLOOR := $(shell sed -n 's/^ *"torch>=\(.*\)",/\1/p' pyproject.toml)

.PHONY: demo test floors format benchmarks docs clean

demo: $(INSTALLED)
	$(VENV)/bin/mmfusion demo --output runs/demo

test: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -m "" -n auto --maxprocesses 8 --dist worksteal

# The default tests with the lowest versions that pyproject.toml allows.
floors: $(INSTALLED)
	$(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv venv --quiet --allow-existing --python $(PYTHON) $(FLOORS)
	$(PYTHON) -m uv pip install --python $(FLOORS)/bin/python --resolution lowest-direct "torch==$(TORCH_FLOOR)" --editable ".[test]"
	$(FLOORS)/bin/python -m pytest -n auto --maxprocesses 8 --dist worksteal

format: $(INSTALLED)
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: $(INSTALLED)
	$(PYTHON) docs/generate_catalogue.py

benchmarks: $(INSTALLED)
	for script in $(filter-out benchmarks/timing.py benchmarks/verify_checkpoint.py benchmarks/reads_both_sides.py,$(wildcard benchmarks/*.py)); do $(PYTHON) $$script || exit 1; done

clean:
	rm -rf $(VENV) $(FLOORS) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# The stamp is written last, so that an interrupted installation is taken up again.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { \
	    rm -rf $(VENV); \
	    for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	        $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	            && echo "Creating $(VENV) with $$($$python --version)" && exec $$python -m venv $(VENV); \
	    done; \
	    echo "mmfusion needs Python 3.11 or newer with its venv module, and found none on the PATH." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(VENV) holds a Python older than 3.11; remove it (make clean) and run make again." >&2; exit 1; }
	$(PYTHON) -m pip install --editable ".[dev]"
	@touch $@
