# Everything happens in .venv; each target makes what it needs, and nothing twice.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Where it is set, each of the many processes of a test run would compile the hub and the tests anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run quick test test-ai oldest torture bench page web test-web screenshots lint types load clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Debian and Ubuntu: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.run: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[speed,load]'
	@touch $@

$(VENV)/.test: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[speed,load,openai,test,test-frameworks]'
	@touch $@ $(VENV)/.run

$(VENV)/.bench: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[speed,load,bench]'
	@touch $@ $(VENV)/.run

$(VENV)/.lint: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[speed,load,openai,test,test-frameworks,lint]'
	@touch $@ $(VENV)/.run $(VENV)/.test

# What the demo needs is set here; a variable that is set already wins.
run: $(VENV)/.run ## Start the hub with the demo on http://127.0.0.1:8080
	@HUB_DEMO="$${HUB_DEMO-1}" HUB_DASHBOARD="$${HUB_DASHBOARD-1}" HUB_EVENTS_API="$${HUB_EVENTS_API-1}" HUB_LISTENERS="$${HUB_LISTENERS-listeners}" \
		HUB_LOG="$${HUB_LOG-sqlite:///data/hub.db}" HUB_AI_PROVIDER="$${HUB_AI_PROVIDER-simulated}" \
		HUB_AI_SIMULATED_TOKENS="$${HUB_AI_SIMULATED_TOKENS-240}" \
		exec $(BIN)/hub serve

# tests/conftest.py says how many workers there are.
PYTEST := -m pytest -n auto --dist worksteal

test: $(VENV)/.test ## Run the tests (ARGS="-k name" for some of them)
	$(BIN)/python $(PYTEST) $(ARGS)

quick: $(VENV)/.test ## Run the tests without processes, browsers and crowds, in less than a minute
	$(BIN)/python $(PYTEST) -m "not slow" --ignore=tests/browser --ignore=tests/ai --durations=3 --durations-min=1 $(ARGS)

# Servers and clients that others wrote; their tests are skipped where they are missing.
$(VENV)/.test-ai: setup.cfg pyproject.toml tests/ai/package-lock.json | $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[speed,load,openai,test,test-frameworks,test-ai]'
	npm ci --prefix tests/ai --no-fund --no-audit --silent
	@touch $@

test-ai: $(VENV)/.test-ai ## Test AI streams with llama.cpp, aimock, the OpenAI and AI SDKs
	$(BIN)/python $(PYTEST) tests/ai $(ARGS)

# The low end of each range in setup.cfg, in an environment of its own: the handover leans on aiohttp's inside.
OLDEST := aiohttp==3.11.18 aiohttp-sse==2.2.0 reactivex==4.0.4 pydantic==2.7.0 prometheus-client==0.20.0 \
	httpx2==2.7.0 PyJWT==2.10.1 cryptography==42.0.0 uvloop==0.19.0 \
	websockets==13.1 msgpack==1.0.8 python-socketio==5.16.0 python-engineio==4.13.0

$(VENV)/oldest/.done: setup.cfg pyproject.toml | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/oldest
	$(VENV)/oldest/bin/python -m pip install --quiet --editable '.[speed,load,test]' $(OLDEST)
	@touch $@

# What meets those libraries: aiohttp and uvloop (the handover, every kind of stream, parsing, shutdown), PyJWT and
# cryptography (tokens), httpx2 (the Python client), pydantic (settings), reactivex (the Subject and the fan-out),
# websockets and msgpack (the other wires), python-socketio and python-engineio.
OLDEST_TESTS := tests/access tests/client/test_client.py tests/client/test_history.py tests/client/test_token.py \
	tests/socketio/test_socketio.py tests/test_fanout.py tests/test_notifications.py tests/test_settings.py \
	$(patsubst %,tests/wires/test_%.py,frames rights websocket wires) \
	$(patsubst %,tests/web/test_%.py,access all_streams body cors deadlines dialects embedding every_route fuzz gunicorn \
	handler_stream_errors handler_stream_shutdown handler_stream_task handler_streams handover history jwks leaving \
	limits publish refusals resource shutdown slow_readers subscribe token_attacks token_cookie)

oldest: $(VENV)/oldest/.done ## Run the tests that meet other libraries with the oldest supported ones
	$(VENV)/oldest/bin/python $(PYTEST) -m "not hypothesis" $(OLDEST_TESTS) $(ARGS)

# Beside the Redis of the machine, others in wheels, if there are some for it.
$(VENV)/.torture: setup.cfg pyproject.toml | $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[speed,load,openai,test,test-frameworks,test-redis]' || \
		echo "not all kinds of Redis can be installed here: some are left out"
	@touch $@

torture: $(VENV)/.torture ## Break hubs, their logs and their Redis under load, again and again (ARGS="500" rounds)
	TORTURE=1 $(BIN)/python $(PYTEST) -m "torture or hypothesis" --timeout 3600
	$(BIN)/python -m tests.torture $(ARGS)
	$(BIN)/python -m tests.cluster $(ARGS)

bench: $(VENV)/.bench ## Measure it, and others beside it (ARGS="--quick --to /tmp/bench --only fanout")
	$(BIN)/python -m tests.benchmarks $(ARGS)

# What it fetches is in the repository: neither an installation nor a test needs npm for it.
PAGE := hub/web/openapi/page
SWAGGER := $(PAGE)/npm/node_modules/swagger-ui-dist

page: ## Fetch the Swagger UI that /docs/api shows the API with (npm)
	npm ci --prefix $(PAGE)/npm --ignore-scripts --no-fund --no-audit --silent
	for file in swagger-ui-bundle.js swagger-ui.css; do \
		grep -v '^/[/*]# sourceMappingURL' $(SWAGGER)/$$file > $(PAGE)/$$file || exit; done
	cp $(SWAGGER)/swagger-ui-bundle.js.LICENSE.txt $(PAGE)
	cp $(SWAGGER)/LICENSE $(PAGE)/swagger-ui.LICENSE.txt
	cp $(SWAGGER)/NOTICE $(PAGE)/swagger-ui.NOTICE.txt
	rm -rf $(PAGE)/npm/node_modules

# What a browser loads of the hub's client is in the repository: running a hub needs no Node.
CLIENT := hub/web/client

$(CLIENT)/node_modules/.done: $(CLIENT)/package.json $(CLIENT)/package-lock.json
	npm ci --prefix $(CLIENT) --no-fund --no-audit --silent
	@touch $@

web: $(CLIENT)/node_modules/.done ## Build the browser client (npm)
	npm run --silent --prefix $(CLIENT) check
	npm run --silent --prefix $(CLIENT) lint
	npm run --silent --prefix $(CLIENT) build

test-web: $(CLIENT)/node_modules/.done ## Test the browser client without a browser (npm)
	npm test --silent --prefix $(CLIENT)

screenshots: $(VENV)/.test ## Take the pictures of the pages in docs/images (Chromium)
	$(BIN)/python -m tests.browser.screenshots $(ARGS)

lint: $(VENV)/.lint ## Check style and imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(VENV)/.lint ## Check types
	$(BIN)/mypy

load: $(VENV)/.run ## Put load on the hub that `make run` started (ARGS="--storm --connections 5000")
	$(BIN)/hub load $(ARGS)

clean: ## Remove the environment and what tools left behind
	rm -rf $(VENV) tests/ai/node_modules tests/browser/node_modules tests/browser/hypermedia/node_modules $(CLIENT)/node_modules $(CLIENT)/dist .bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
