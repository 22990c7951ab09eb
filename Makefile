# `make help` lists the targets. Each sets up .venv first, unless that is done.
#   PYTHON=/path/to/python3.11    Python for .venv, or a version such as 3.12; default: the best one found
#   VENV=.venv-3.12               another environment, for a second Python
#   BUILD={auto,cpu,gpu}          TensorFlow's build; auto selects gpu if there is an NVIDIA driver

DEMO_PEOPLE ?= 3600
DEMO_RECORDS ?= data/demo
DEMO_RUN ?= runs/demo
DEMO_FLAGS ?=
KILL_FLAGS ?= --kills=100 --seed=0 --minutes=20
CORRUPTION_FLAGS ?= --count=300 --seed=0

# Not ?=, which would use what the shell has set for another purpose.
VENV = .venv
TESTED =
RUN := $(VENV)/bin/python
# A file's tests share trained networks: one process per file, two at a time, in the order of
# tests/conftest.py.
TESTS := $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# The demo's inputs are 128 px, enlarged by at most 1/0.75, shrunk by at most 1.25, not rotated.
MAKE_RECORDS = $(RUN) scripts/make_tfrecords.py --dataset=synthetic --side=171 --context=1.3 --people=$(DEMO_PEOPLE) --records="$(DEMO_RECORDS)"
TRAIN = $(RUN) train_main.py --flagfile=configs/demo.flags --records="$(DEMO_RECORDS)" --workdir="$(DEMO_RUN)" $(DEMO_FLAGS)
EVALUATE = $(RUN) eval_main.py --flagfile=configs/demo.flags --records="$(DEMO_RECORDS)" --workdir="$(DEMO_RUN)" $(DEMO_FLAGS)

export BUILD VENV
# Packages of other Pythons on these paths would shadow the pinned ones.
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help venv torch export-tools demo test unit fire lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' Makefile

venv: ## create .venv with the pinned packages
	@bash scripts/make_venv.sh "$(PYTHON)"

torch: venv ## add PyTorch (CPU), for .pth files and for comparison tests
	@PIP_USER=0 $(RUN) -m pip install --quiet --disable-pip-version-check --only-binary=:all: --retries=1 -r requirements-torch.txt

export-tools: venv ## add ONNX and OpenVINO, for scripts/export.py and its tests
	@PIP_USER=0 $(RUN) -m pip install --quiet --disable-pip-version-check --only-binary=:all: --retries=1 --no-deps -r requirements-export.txt

demo: venv ## synthetic people: records, training, evaluation, pictures; then a real photograph
	$(MAKE_RECORDS)
	$(TRAIN)
	$(EVALUATE)
	$(RUN) scripts/predict.py docs/street.jpg --boxes=docs/street.csv --output="$(DEMO_RUN)/photograph"
	@echo "Synthetic people, true and predicted: $(DEMO_RUN)/predictions.png"
	@echo "A real one, by the network in pretrained/: $(DEMO_RUN)/photograph/street.jpg"

test: lint ## lint and the tests
	$(TESTS) -m "not fire"

unit: venv ## the fast tests; of TESTED="files and folders" alone
	$(TESTS) -m "not slow and not fire" $(TESTED)

fire: venv ## what takes too long for make test: long tests, kills, corruptions
	$(TESTS) -m fire
	$(RUN) -m tests.fire.kills $(KILL_FLAGS)
	$(RUN) -m tests.fire.corruptions $(CORRUPTION_FLAGS)

lint: venv ## ruff: rules and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean: ## remove .venv and caches; keeps data/ and runs/
	rm -rf .venv .venv-* .pytest_cache .ruff_cache .hypothesis
	find hourglass pipelines scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
