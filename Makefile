# Two targets set everything up: `make repro` runs the pipeline, `make test` the tests.
PYTHON ?= python3
PORT ?= 3000
PREFECT_PORT ?= 4200
# a machine with an NVIDIA driver gets TensorFlow with CUDA, every other one the CPU build
REQUIREMENTS ?= requirements/$(if $(shell command -v nvidia-smi),gpu,run).txt

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
export BENTOML_HOME ?= $(CURDIR)/.bentoml
# uv leaves compiling to the first import: unsaved, every process would compile TensorFlow anew (7 s)
unexport PYTHONDONTWRITEBYTECODE

.PHONY: repro test test-fast lint serve flows lock
READY := .venv/.ready
TEST_READY := .venv/.test-ready

repro: $(READY)
	dvc repro
	@printf '\nGate (reports/gate.json)\n'
	@python -c 'import json; [print(" ", r["sentence"]) for r in json.load(open("reports/gate.json"))["rules"]]'
	@printf '%s\n' '' \
	  'Metrics   reports/metrics.json, `dvc metrics show`, models/release/model_card.md' \
	  'Data      reports/assembly.json, reports/data-docs/{records,manifest}/index.html' \
	  'Figures   reports/explore/, reports/evaluation/, `dvc plots show`' \
	  'Bento     models/chest-xray.bento' \
	  'Serve it  make serve PORT=$(PORT), then open http://127.0.0.1:$(PORT)'

# two files of tests at a time: most of a test's time is imports and other processes
PYTEST := pytest -n 2 --dist loadfile --no-loadscope-reorder
test: $(TEST_READY)
	$(PYTEST)

# without what trains or starts servers: two minutes
test-fast: $(TEST_READY)
	$(PYTEST) -m 'not slow and not heavy'

lint: $(TEST_READY)
	ruff check .
	ruff format --check .
	pyright
	lint-imports --no-cache --no-logo
	codespell

serve: $(READY)
	rm -rf .bentoml && mkdir .bentoml && bentoml import $(CURDIR)/models/chest-xray.bento
	bentoml serve chest_xray:latest --port $(PORT)

flows: $(READY)
	python -m flows.serve --port $(PREFECT_PORT)

COMPILE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
# what is served, tested and run on a GPU has the versions of run.txt
lock: $(READY)
	$(COMPILE) pyproject.toml --group uv -o requirements/uv.txt
	$(COMPILE) pyproject.toml --group run -o requirements/run.txt
	for name in test serve gpu jax; do \
	  $(COMPILE) pyproject.toml --group $$name -c requirements/run.txt -o requirements/$$name.txt || exit; done

# everything is pinned, so no resolver is needed; quiet.pth turns usage reports off for every command run from here
INSTALL := install --quiet --no-deps --require-hashes -r
$(READY): requirements/uv.txt $(REQUIREMENTS) requirements/quiet.pth
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  f"error: {sys.executable} is Python {v[0]}.{v[1]}; 3.11 to 3.13 is needed: make PYTHON=python3.11 ...")'
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	pip --disable-pip-version-check $(INSTALL) requirements/uv.txt
	uv pip $(INSTALL) $(REQUIREMENTS)
	cp requirements/quiet.pth "$$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	touch $@

$(TEST_READY): $(READY) requirements/test.txt
	uv pip $(INSTALL) requirements/test.txt
	touch $@
