# make repro: from a fresh clone to a report.   make test: the tests; test-avx2: some of them as on a laptop.
# make lock: new versions of everything.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1

.PHONY: repro test test-avx2 check lock data browser clean

repro: $(VENV)/installed data
	dvc repro
	dav2 summary

data: $(VENV)/installed
	@git rev-parse --git-dir >/dev/null 2>&1 || { echo "this folder is no git repository, and DVC and the lineage of models need one: clone dav2 with git, or run 'git init' here"; exit 1; }
	dvc pull --quiet data.dvc

# As many tests at a time as there are cores, up to four; the order is that of tests/conftest.py.
PARALLEL := -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

test: $(VENV)/installed data browser check
	python -m pytest tests $(PARALLEL) --durations 20

# As on a processor with AVX2 only, wherever this runs: what trains, labels and predicts once more.
NETWORK := $(patsubst %,tests/families/depth_anything/test_%.py,architecture bilinear packed parity precision)
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2

test-avx2: $(VENV)/installed data
	$(AVX2) python -m pytest tests/training tests/pseudo_label tests/test_machine.py $(NETWORK) $(PARALLEL)

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

clean:
	-dav2 down
	rm -rf artifacts reports .dav2
