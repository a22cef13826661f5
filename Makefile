# make repro: from a fresh clone to a report (VERBOSE=1 prints all that its stages say).   make test: the tests; test-avx2: some of them as on a laptop.
# make lock: new versions of everything.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1

.PHONY: repro test test-avx2 check lock data browser slurm clean team-up team-down team-status team-backup team-restore

repro: $(VENV)/installed data
	@$(if $(VERBOSE),dvc repro,python -m flows.repro)
	@dav2 summary

# Once for each state of the sample: what somebody has put into data/ since, DVC would ask to delete, and without a
# terminal fail. Who keeps no sample has no data.dvc (docs/data-sets.md).
data: $(VENV)/installed
	@git rev-parse --git-dir >/dev/null 2>&1 || { echo "this folder is no git repository, and DVC and the lineage of models need one: clone dav2 with git, or run 'git init' here"; exit 1; }
	@test ! -f data.dvc || { test -d data && cmp -s data.dvc .dvc/tmp/pulled; } || { dvc pull --quiet data.dvc && cp data.dvc .dvc/tmp/pulled; }

# Tests wait for servers and processes half of the time, so that one more goes at a time than there are cores, up to
# five; the order is that of tests/conftest.py.
CORES := $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
PARALLEL := -n $$(( $(CORES) < 4 ? $(CORES) + 1 : 5 )) --dist loadscope --no-loadscope-reorder

test: $(VENV)/installed data browser slurm check
	python -m pytest tests $(PARALLEL) --durations 20 || $(ALONE)

# Servers are killed, started and waited for beside other tests. What failed so is named above and run once more, alone:
# failing then, too, it has failed.
ALONE := python -m pytest tests --last-failed --last-failed-no-failures none --maxfail 10

# As on a processor with AVX2 only, wherever this runs: what trains, labels and predicts once more.
NETWORK := $(patsubst %,tests/families/depth_anything/test_%.py,architecture bilinear packed parity precision)
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2

test-avx2: $(VENV)/installed data
	@if [ "$$(python -c 'import torch; print(torch.backends.cpu.get_cpu_capability())')" = AVX2 ]; then \
	echo "this processor has AVX2 and no more: 'make test' is that run already"; else set -x; \
	$(AVX2) python -m pytest tests/training tests/pseudo_label tests/test_machine.py $(NETWORK) $(PARALLEL) || $(AVX2) $(ALONE); fi

check: $(VENV)/installed
	ruff check .
	ruff format --check --quiet .
	mypy

# uv installs the locked set in a fraction of pip's time; it is itself in the lock, hashes and all.
$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dav2 needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/^[a-z]/{/^uv==/p;/--hash/p}' requirements.lock > $(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

lock:
	uv pip compile --universal --generate-hashes --all-extras --no-emit-index-url --no-header --quiet --upgrade pyproject.toml -o requirements.lock

# The page tests drive a real browser; Debian's is installed where there is none and we may.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install -y chromium >/dev/null; } || \
	{ echo "the page tests need a browser: install chromium"; exit 1; }

# Some tests drive a real Slurm; without it, and where it cannot be installed, they are skipped and say so.
slurm:
	@command -v sbatch >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install -y --no-install-recommends slurm-wlm munge >/dev/null; } || \
	echo "no Slurm here: its tests are skipped"

# What a team shares (docs/team.md). TEAM=processes runs the same services without containers.
TEAM ?= containers
COMPOSE ?= podman-compose
COMPOSED := $(COMPOSE) -f infra/compose.yaml
BACKUP ?= backups/team-$(shell date -u +%Y%m%dT%H%M%SZ)

ifeq ($(TEAM),processes)
team-up: $(VENV)/installed
	python -m flows.team up
team-down:
	python -m flows.team down
team-status:
	python -m flows.team status
team-backup:
	python -m flows.team backup $(BACKUP)
team-restore:
	python -m flows.team restore $(BACKUP)
else
team-up: $(VENV)/installed
	python -m flows.team secrets
	$(COMPOSED) up -d
team-down:
	$(COMPOSED) down
team-status:
	$(COMPOSED) run --rm tools
team-backup:
	mkdir -p backups
	$(COMPOSED) run --rm tools python -m flows.team backup /$(BACKUP)
team-restore:
	mkdir -p .dav2/team && cp -r $(BACKUP)/secrets .dav2/team/secrets
	$(COMPOSED) up -d postgres store
	$(COMPOSED) run --rm tools python -m flows.team restore-data /$(BACKUP)
	$(COMPOSED) down
endif

clean:
	-dav2 down
	rm -rf artifacts reports .dav2
