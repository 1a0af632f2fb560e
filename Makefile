# Two commands do everything: `make run` and `make test`. Both set up what they need first.
#
#   make run [MODEL=hub-id-or-folder] [PORT=7860]      TORCH_BACKEND=cpu|cu128|... picks another build of torch

SHELL := /bin/bash
PYTHON_IN_VENV := .venv/bin/python
SETUP := .venv/.setup-run
SETUP_DEV := .venv/.setup-dev

.PHONY: run test test-fast setup setup-dev lint audit bench soak pocket starter lock clean help

help:  ## What there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(SETUP)  ## Set up, then start the studio
	@$(if $(MODEL),DMPO_BASE_MODEL="$(MODEL)") $(if $(PORT),DMPO_PORT="$(PORT)") .venv/bin/dmpo serve

test: $(SETUP_DEV)  ## Set up, then pass all tests, browser included
	@scripts/test.sh

test-fast: $(SETUP_DEV)  ## The tests of tests/ without browsers, kills and whole servers, in two minutes
	@PYTHONDONTWRITEBYTECODE= $(PYTHON_IN_VENV) -m pytest -n 2 -m "not slow" tests

lint: $(SETUP_DEV)  ## ruff, mypy --strict, import-linter, unused code, docs/code.md up to date; prettier, eslint, tsc
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports
	@.venv/bin/vulture && $(PYTHON_IN_VENV) scripts/unused_names.py
	@$(PYTHON_IN_VENV) scripts/code_tree.py --check
	@scripts/lint_js.sh

audit: $(SETUP_DEV)  ## Known vulnerabilities of the locked dependencies, where an index can tell
	@$(PYTHON_IN_VENV) scripts/audit.py

setup: $(SETUP)  ## Install what `make run` needs
setup-dev: $(SETUP_DEV)  ## Install what `make test` needs

$(SETUP): requirements/runtime.txt requirements/torch.txt pyproject.toml scripts/setup.sh
	@scripts/setup.sh run && touch $@

# Makes $(SETUP) itself, beside the system's packages.
$(SETUP_DEV): requirements/runtime.txt requirements/torch.txt requirements/dev.txt pyproject.toml scripts/setup.sh \
	scripts/chromium.sh scripts/postgres.sh scripts/nginx.sh
	@scripts/setup.sh dev && touch $@

soak: export PYTHONDONTWRITEBYTECODE =
soak: $(SETUP_DEV)  ## The kill tests in full (50 of each)
	@DMPO_SOAK_KILLS=50 $(PYTHON_IN_VENV) -m pytest -m soak --timeout 3600

BENCHMARKS := startup pocket_quality loop votes swap learning hit_rates dataset_size restore exchange_export toy_modes \
	key_press load hostile power_cut sides sybils attackers hostile_files slow_clients faults starts hosting parent_kills gate duel_test effects

bench: $(SETUP_DEV)  ## The numbers of docs/benchmarks.md; those that need more than a command say so there
	@for name in $(BENCHMARKS); do echo "== $$name"; $(PYTHON_IN_VENV) -m "benchmarks.$$name" || exit 1; done
	@mkdir -p build && $(PYTHON_IN_VENV) -m benchmarks.few_votes --out build/few-votes.jsonl
	@$(PYTHON_IN_VENV) -m benchmarks.few_votes_report build/few-votes.jsonl
	@$(PYTHON_IN_VENV) -m benchmarks.step_choice run --out build/step-choice.jsonl
	@$(PYTHON_IN_VENV) -m benchmarks.step_choice report build/step-choice.jsonl
	@$(PYTHON_IN_VENV) -m benchmarks.turned_rounds --out build/turned-rounds.jsonl
	@$(PYTHON_IN_VENV) -m benchmarks.turned_rounds --out build/turned-rounds.jsonl --report

pocket: $(SETUP)  ## Train the pocket model from scratch (resumable, about 90 minutes on 2 cores)
	@$(PYTHON_IN_VENV) -m examples.pocket_model train

starter: $(SETUP)  ## Render the starter pairs that ship with the pocket model
	@.venv/bin/dmpo starter-pairs

lock:  ## Resolve the requirement files anew
	@scripts/lock.sh

clean:  ## Remove the virtual environment and caches; data/studio stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
