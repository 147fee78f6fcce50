# make run | test | ui | serve | reports | bench | demo-drift | lint | lock; words such as SOURCE=mnist-fsdd pass on as environment.
PYTHON ?= python3
ifdef SOURCE
export SEEHEAR_SOURCE := $(SOURCE)
endif
ifdef MIRROR
export SEEHEAR_MIRROR := $(MIRROR)
endif
ifdef FOLDER
export SEEHEAR_FOLDER := $(FOLDER)
endif
ifdef GROUP_PATTERN
export SEEHEAR_GROUP_PATTERN := $(value GROUP_PATTERN)
endif
ifdef BUDGET
export SEEHEAR_BUDGET := $(BUDGET)
endif
ifdef SEED
export SEEHEAR_SEED := $(SEED)
endif
ifdef DEVICE
export SEEHEAR_DEVICE := $(DEVICE)
endif
ifdef WORKERS
export SEEHEAR_WORKERS := $(WORKERS)
endif
export SEEHEAR_ROOT := $(CURDIR)
export DAGSTER_HOME := $(CURDIR)/var/dagster
export BENTOML_HOME := $(CURDIR)/models/bentoml
export BENTOML_DO_NOT_TRACK := True
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false
export DAGSTER_DISABLE_TELEMETRY := yes
# How long a waiting OpenMP thread spins before it sleeps: by default so long that training takes twenty times as long where
# other work has one of the cores.
export GOMP_SPINCOUNT ?= 20000
BIN := .venv/bin

.PHONY: run test ui serve reports bench demo-drift lint lock setup
run: setup ; @$(BIN)/python -m orchestration.launch
test: setup ; @$(BIN)/python -m pytest $(or $(TESTS),-n 3 --dist loadfile --no-loadscope-reorder)
ui: setup ; @$(BIN)/python -m orchestration.runs && $(BIN)/dagster dev --host 127.0.0.1 --port $(or $(PORT),3000)
serve: setup ; @$(BIN)/python -m serving.client --port $(or $(PORT),3001)
reports: setup ; @$(BIN)/evidently ui --workspace reports/evidently --host 127.0.0.1 --port $(or $(PORT),8000)
bench: setup ; @$(BIN)/python -m benchmarks $(ONLY)
demo-drift: setup ; @$(BIN)/python -m orchestration.demo
lint: setup ; @$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/lint-imports

setup: # into .venv, and again only when the lock or the packaging changed
	@cmp -s requirements.lock .venv/requirements.lock || { \
	  echo "Setting up .venv: 285 packages, about 7 GB, 3 to 6 minutes" && \
	  { $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv; } && \
	  $(BIN)/python -m pip install --no-deps --require-hashes --progress-bar off -r requirements.lock && \
	  cp requirements.lock .venv/requirements.lock; }
	@cmp -s pyproject.toml .venv/pyproject.toml || { \
	  $(BIN)/python -m pip install --no-deps --no-build-isolation --quiet -e . && cp pyproject.toml .venv/pyproject.toml; }
	@mkdir -p var/dagster reports models && cp orchestration/dagster.yaml var/dagster/dagster.yaml

lock: # writes requirements.lock anew; needs uv on the PATH
	uv pip compile pyproject.toml --all-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements.lock
