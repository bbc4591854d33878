# Every target makes what it needs: a fresh clone, Python 3.11 or newer and a package index are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WITH_PEERS := $(VENV)/.with-peers
WITH_SERVERS := $(VENV)/.with-servers
WITH_DOCS := $(VENV)/.with-docs

.PHONY: install demo course docs test test-slow study bench bench-full gpu-check lint clean

install: $(READY)

# The environment is complete only when the last step has succeeded; a broken one is made again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else f"rnnstudy needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}; say make PYTHON=python3.12, for example")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	touch $(READY)

# What the benchmarks compare with, and what the slow tests talk to and train with: neither is needed for work with the package.
$(WITH_PEERS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]' --constraint constraints.txt
	touch $(WITH_PEERS)

$(WITH_SERVERS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,ray,postgres,browser,docs,lightning,transformers]' --constraint constraints.txt
	touch $(WITH_SERVERS)

$(WITH_DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]' --constraint constraints.txt
	touch $(WITH_DOCS)

demo: install
	$(BIN)/rnnstudy sweep experiments/quickstart.py
	$(BIN)/rnnstudy report quickstart
	@echo
	@echo 'Look at   build/reports/quickstart.html       the figures, with what to see in them'
	@echo '          $(BIN)/rnnstudy ui              the runs in the MLflow UI'
	@echo '          experiments/quickstart.py           what was asked; change it and sweep again'

# Needs no runs.
course: install
	$(BIN)/rnnstudy report course
	@echo
	@echo 'Look at   build/reports/course/index.html     all figures; or open reports/course/1_sequences.ipynb and begin'

# NO_MKDOCS_2_WARNING: the theme speaks of MkDocs's future in every build; constraints.txt holds the version.
docs: $(WITH_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo
	@echo 'Look at   build/site/index.html               guides, course, reports, reference; needs no network'

test: install lint
	$(BIN)/python -m pytest -m 'not slow' -n auto --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test-slow: $(WITH_SERVERS)
	$(BIN)/python -m pytest -m slow

# Interrupted, it goes on where it stopped: a sweep trains only what the store does not hold yet.
study: install
	for experiment in experiments/*.py; do $(BIN)/rnnstudy sweep $$experiment || exit $$?; done
	$(BIN)/rnnstudy report --export reports/data
	@echo
	@echo 'Look at   reports/index.html                  every figure, in reading order; these are the committed reports'

bench: $(WITH_PEERS)
	$(BIN)/python -m benchmarks

# On a GPU machine that has torch and triton already, and perhaps no package index: its own Python, no environment made.
gpu-check:
	PYTHONPATH=. $(PYTHON) -m benchmarks.gpu_check $(or $(OUT),build/gpu-check)

bench-full: bench
	for what in growth outcomes end_to_end tracking loading store_size watching scan scan_peers symbols any_cell limits; do $(BIN)/python -m benchmarks $$what || exit $$?; done

clean:
	rm -rf $(VENV) build *.egg-info
