# Included by the Makefile of a checkout: what its developers run.

ready_dev := $(VENV)/.ready-dev
$(ready_dev): pyproject.toml
	@scripts/setup $(VENV) cpu,dev
	@touch $@ $(ready)

##@ Develop

.PHONY: test
test: | $(ready_dev) ## all tests (about 10 minutes on 2 cores)
	@$(VENV)/bin/python -m pytest -n 3 $(TESTS)

.PHONY: lint
lint: | $(ready_dev) ## ruff (rules and format), mypy, shellcheck
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet . || { echo 'lint: type: $(VENV)/bin/ruff format .' >&2; exit 1; }
	@$(VENV)/bin/mypy
	@scripts/lint-shell

.PHONY: format
format: | $(ready_dev) ## let ruff format the Python code
	@$(VENV)/bin/ruff format .

.PHONY: golden
golden: | $(ready_dev) ## rewrite the expected outputs in tests/cases; read the diff
	@$(VENV)/bin/python -m pytest tests --golden-rewrite

.PHONY: man
man: | $(ready_dev) ## a man page of each command, in build/man
	@$(VENV)/bin/python scripts/man_pages.py build/man
	@echo 'build/man: try man -l build/man/llmpar-request.1'

.PHONY: bench
bench: | $(ready_dev) ## what a request costs and how true its times are, next to curl and others
	@bench/run

.PHONY: bench-peers
bench-peers: ## install guidellm, aiperf and inference-perf for make bench
	@bench/peers

.PHONY: soak
soak: | $(ready_dev) ## minutes of seeded hostile answers, broken files, kills and 60,000 prompts (CASES=5000 SOAK_SEED=0 PART= KILLS=50)
	@$(VENV)/bin/python -m tests.soak $(or $(CASES),5000) $(or $(SOAK_SEED),0) '$(PART)' $(or $(KILLS),50)

.PHONY: hold-out
hold-out: | $(ready) ## predictions against measurements of others: predicted, measured, error by card and figure
	@PYTHONPATH=. $(VENV)/bin/python bench/hold_out.py $(HOLD_OUT)

.PHONY: engines
engines: | $(ready) ## prove the engines that run without a GPU: requests, failures, tokens/s
	@scripts/engines
