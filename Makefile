# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-dev
DEMO_STAMP := $(VENV)/.installed
DEMO := results/demo
INSTALL := .ci/install $(BIN)
AOT := jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 nvidia-cuda-nvcc-cu12==12.9.86 'nvidia-cudnn-cu12>=9.10,<10' 'libtpu==0.0.42.*'
LOCK := uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header

.PHONY: setup setup-demo demo test test-fast test-all lint docs screenshots bench lab fidelity coverage design backtest scalebench compare chaos aot wheel-check lock clean

setup: $(STAMP)

setup-demo: $(DEMO_STAMP)

$(DEMO_STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements.lock
	$(INSTALL) --no-deps -e .
	$(BIN)/python -m compileall -q scaling  # else every process compiles it anew where PYTHONDONTWRITEBYTECODE is set
	touch $(DEMO_STAMP)

$(STAMP): $(DEMO_STAMP) requirements-dev.lock
	$(INSTALL) -r requirements-dev.lock
	touch $(STAMP)

demo: setup-demo
	$(BIN)/scaling run sweeps/demo.toml --out $(DEMO)
	$(BIN)/scaling fit $(DEMO)
	$(BIN)/scaling predict $(DEMO)/fits/chinchilla.json --flops 1e14
	$(BIN)/scaling report $(DEMO)
	@echo "open $(DEMO)/report/index.html"

test: setup
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not exhaustive"

test-fast: setup  # without training and processes: for the edit loop
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not slow and not exhaustive"

test-all: setup
	$(BIN)/pytest -q -n 2 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

screenshots: setup
	$(BIN)/python -m docs.screenshots

bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fits.py $(PEERS)
	$(BIN)/python -m benchmarks.steps $(STEP_PEERS)

lab: setup
	$(BIN)/python benchmarks/laboratory.py

fidelity: setup
	$(BIN)/python benchmarks/fidelity.py $(DATA)

coverage: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/coverage.py --write docs/coverage.md

design: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.design

scalebench: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scalebench $(DATA)

backtest: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.backtest $(DATA)

compare: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.compare

aot: setup  # compiles for H100 and TPU v5e, which need not be here
	$(BIN)/python -c "import jax_cuda12_plugin, libtpu" 2>/dev/null || $(INSTALL) --no-deps $(AOT)
	$(BIN)/python -m benchmarks.aot $(CASES)

chaos: setup
	$(BIN)/python -m benchmarks.chaos

wheel-check: setup
	$(BIN)/python benchmarks/wheel.py

lock:
	$(LOCK) --extra dev pyproject.toml -o requirements-dev.lock
	$(LOCK) -c requirements-dev.lock pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) $(DEMO) site
