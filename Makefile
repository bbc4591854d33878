# Every target makes what it needs: a fresh clone, Python 3.11 or newer and a package index are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: install demo test test-slow study bench lint clean

install: $(READY)

# The environment is complete only when the last step has succeeded; a broken one is made again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else f"rnnstudy needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}; say make PYTHON=python3.12, for example")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	touch $(READY)

demo: install
	$(BIN)/rnnstudy sweep experiments/quickstart.py
	$(BIN)/rnnstudy report quickstart
	@echo
	@echo 'Look at   reports/quickstart.html             the figures, with what to see in them'
	@echo '          $(BIN)/rnnstudy ui              the runs in the MLflow UI'
	@echo '          experiments/quickstart.py           what was asked; change it and sweep again'

test: install lint
	$(BIN)/python -m pytest -m 'not slow' -n auto --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test-slow: install
	$(BIN)/python -m pytest -m slow

study: install
	$(BIN)/rnnstudy sweep experiments/quickstart.py
	$(BIN)/rnnstudy report

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info
