# Targets make what they need in .venv (floors: in .venv-floors), and reuse it the next time. The site and the page of
# `mmfusion app` have environments of their own, which read the libraries of .venv.
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
FLOORS := .venv-floors
SITE := .venv-docs
APP := .venv-app
# Benchmarks that read a data set.
NEED_DATA := $(addsuffix .py,verify_checkpoint reads_both_sides recalibration familiarity peers/automm)
# The lowest torch is asked for by name: torchvision, which timm brings, would draw in the newest.
TORCH_FLOOR := $(shell sed -n 's/^ *"torch>=\(.*\)",/\1/p' pyproject.toml)

.PHONY: demo test app floors format benchmarks docs clean

demo: $(INSTALLED)
	$(VENV)/bin/mmfusion demo --output runs/demo

test: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/codespell
	$(PYTHON) -m pytest -m "" -n auto --maxprocesses 8 --dist worksteal

app: $(APP)/.installed
	$(APP)/bin/python -m mmfusion app --open_browser

# The default tests with the lowest versions that pyproject.toml allows.
floors: $(INSTALLED)
	$(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv venv --quiet --allow-existing --python $(PYTHON) $(FLOORS)
	$(PYTHON) -m uv pip install --python $(FLOORS)/bin/python --resolution lowest-direct "torch==$(TORCH_FLOOR)" --editable ".[test]"
	$(FLOORS)/bin/python -m pytest -n auto --maxprocesses 8 --dist worksteal

format: $(INSTALLED)
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# Tables and stubs that are made from the code, then the site in build/site. Building needs no network.
docs: $(SITE)/.installed
	$(PYTHON) docs/generate_catalogue.py
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/python -m mkdocs build --quiet

# make benchmarks DATA=../ham10000: with a data set also what needs one.
MEASURED := $(filter-out $(addprefix benchmarks/,timing.py $(NEED_DATA)),$(wildcard benchmarks/*.py))
benchmarks: $(INSTALLED)
	for script in $(MEASURED); do echo "== $$script"; $(PYTHON) $$script || exit 1; done
ifdef DATA
	for script in $(NEED_DATA); do echo "== benchmarks/$$script"; $(PYTHON) benchmarks/$$script --data $(DATA) || exit 1; done
else
	@for script in $(NEED_DATA); do echo "== benchmarks/$$script: skipped, needs data (make benchmarks DATA=DIR)"; done
endif

clean:
	rm -rf $(VENV) $(FLOORS) $(SITE) $(APP) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

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

# An environment of its own for the extra $(2), which takes from .venv what fits.
define beside
	$(PYTHON) -m venv --clear $(1)
	echo "import site; site.addsitedir('$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
	    > "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$(2)"], sep="\n")' > $(1)/extra.txt
	$(1)/bin/python -m pip install --quiet --requirement $(1)/extra.txt
	@touch $(1)/.installed
endef

$(SITE)/.installed: $(INSTALLED)
	$(call beside,$(SITE),docs)

$(APP)/.installed: $(INSTALLED)
	$(call beside,$(APP),app)
