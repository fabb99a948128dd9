# Framebank: everything a developer runs. Each target builds .venv first when it is missing.
#   make demo    the main job end to end on clips it makes itself, offline, under ten minutes
#   make test    all tests
#   make check   format, lint, types
#   make docs    the documentation as a site, in build/site
#   make bench   extraction against its peers and against itself, in .venv-bench (8 GB); one to two hours
#   make prism   Beam's portable runner in Go (needs Go) into .venv/built
#   make tfio    a trainer that reads s3://, az:// and http:// by tensorflow-io, in .venv-tfio
#   make tfio-test  the tests of the trainer and the readers in there
#   make flink   a Flink 1.20 session cluster (needs Java 17 to run) into .venv/built

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Not written where it is used: a comma would end the argument of a call.
EVERYTHING := --editable ".[all,dev]"
FLOORS := features pipelines train
CODE := framebank $(FLOORS) tests infra setup.py

# Two processes share the tests, a file at a time: most tests leave a core idle. One that dies has
# its test tried again, once: a test that always hangs would be tried for hours.
TWO_AT_A_TIME := --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 1

BENCH := .venv-bench
TFIO := .venv-tfio
# All but what looks at this environment from without.
TFIO_TESTS = $(filter-out tests/train/workers/test_tfio.py,$(wildcard tests/train/*/test_*.py tests/features/*.py tests/features/*/test_*.py))
BUILT := $(CURDIR)/$(VENV)/built
PRISM := github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0

# Where it is set (many images set it), each of the many processes of a command, a test or a bench
# would compile all that it imports anew: of TensorFlow 15 s.
export PYTHONDONTWRITEBYTECODE :=

# $(call into,ENVIRONMENT,WORDS): install into it by uv, sooner than by pip; where uv cannot be had,
# or does not get through, by pip.
into = $(1)/bin/pip install --quiet uv && $(1)/bin/uv pip install --quiet --python $(1)/bin/python $(2) \
	|| { $(1)/bin/pip install --quiet --upgrade pip && $(1)/bin/pip install --quiet $(2); }

# $(call compile,ENVIRONMENT): compile what the commands import, which uv leaves to the first of them:
# for whoever runs them with that variable set. All that is installed would be ten times as much.
compile = $(1)/bin/python -c "import apache_beam, framebank.features.tensorflow_import as tf; tf.import_tensorflow()"

.PHONY: install demo test check format docs bench prism flink tfio tfio-test clean

install: $(STAMP)

$(STAMP): setup.py
	$(PYTHON) -m venv $(VENV)
	$(call into,$(VENV),$(EVERYTHING))
	$(call compile,$(VENV))
	touch $(STAMP)

demo: install
	$(BIN)/framebank demo --out framebank-demo

test: install
	$(BIN)/python -m pytest $(TWO_AT_A_TIME) $(PYTEST_ARGS)

check: install
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	mkdir -p build/typed/framebank
	for floor in $(FLOORS); do ln -sfn $(CURDIR)/$$floor build/typed/framebank/$$floor; done
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file infra/mkdocs.yml
	@echo "build/site/index.html"

bench: $(BENCH)/.installed
	$(BENCH)/bin/python infra/bench/bench.py --out build/bench.json $(BENCH_ARGS)

$(BENCH)/.installed: infra/bench/install_peers.py setup.py
	$(PYTHON) -m venv $(BENCH)
	$(call into,$(BENCH),--editable ".[all]")
	$(BENCH)/bin/python infra/bench/install_peers.py
	$(call compile,$(BENCH))
	touch $@

prism: install
	GOBIN=$(BUILT) GOFLAGS=-trimpath go install $(PRISM)
	@echo "framebank extract ... --runner PrismRunner --prism_location $(BUILT)/prism"

flink: install
	$(BIN)/python -m tests.servers.flink_cluster $(BUILT)/flink

tfio: $(TFIO)/.installed
	@echo "$(TFIO)/bin/framebank train --cache s3://BUCKET/cache ..."

$(TFIO)/.installed: infra/docker/trainer-tfio.txt setup.py
	$(PYTHON) -m venv $(TFIO)
	$(call into,$(TFIO),--upgrade setuptools --requirement infra/docker/trainer-tfio.txt)
	$(call into,$(TFIO),--no-deps --editable .)
	touch $@

tfio-test: tfio
	$(call into,$(TFIO),"pytest>=8.0" "gcp-storage-emulator>=2026.7")
	$(TFIO)/bin/python -m pytest $(TFIO_TESTS) $(PYTEST_ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
