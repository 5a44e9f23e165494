# llmpar: time a fixed prompt set against LLM inference engines. `make` alone prints what there is.
SHELL := bash
# --norc: over ssh Debian's bash reads its start-up files for -c too, and few of them bear -u.
.SHELLFLAGS := --norc -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Where this file is: the checkout, or the copy in an installed package, whose scripts and tables are used from any
# directory. Results and tables of one's own are in the directory where make runs, and win.
HERE := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
package := $(firstword $(wildcard $(HERE)/llmpar) $(HERE)/..)
export LLMPAR_MAKEFILE := $(abspath $(HERE)/Makefile)

-include config.mk

# Words from the command line and the environment are taken as they are: a model's name or an address that holds
# $(shell ...) is text. config.mk is Make, and its owner's.
literal = $(if $(filter command environment,$(firstword $(origin $1))),$(eval override $1 := $$(value $1)))
$(foreach setting,SWEEP REPEATS SEED RUNS BASE_URL ENGINE MODEL API VENV PYTHON EXTRAS PICK LOAD_HOSTS HOSTS TESTS SLO A B BY SPACE MINUTES AXIS MOST PRICE SEARCH LLMPAR_RUNS LLMPAR_BASE_URL LLMPAR_ENGINE LLMPAR_MODEL LLMPAR_API LLMPAR_RUNNING LAUNCHER,$(call literal,$(setting)))

SWEEP ?= quick
REPEATS ?= 1
SEED ?= 0
RUNS ?= $(or $(LLMPAR_RUNS),runs)
BASE_URL ?= $(LLMPAR_BASE_URL)
ENGINE ?= $(LLMPAR_ENGINE)
MODEL ?= $(LLMPAR_MODEL)
API ?= $(LLMPAR_API)
VENV ?= .venv
PYTHON ?= python3
export LAUNCHER
EXTRAS ?= cpu,plot,aio

tables := sweeps $(HERE)/sweeps
table := $(firstword $(wildcard sweeps/$(SWEEP).tsv $(SWEEP).tsv $(HERE)/sweeps/$(SWEEP).tsv $(SWEEP)) sweeps/$(SWEEP).tsv)
below := $(firstword $(foreach folder,$(tables),$(patsubst $(folder)/%,%,$(filter $(folder)/%,$(basename $(table))))))
sweep_name := $(subst /,-,$(or $(below),$(notdir $(basename $(table)))))

# Make splits names at blanks, and recipes hand them to a shell: such a path would reach another directory than the one
# that was meant.
empty :=
hash := \#
comma := ,
odd := ' " ` $$ \ ; & | < > ( ) { } [ ] * ? ! % = : ~ , $(hash)

# What was measured on one server never passes for another: a server that already runs is part of the folder's name. In a
# session LLMPAR_BASE_URL may be that of the server launched for it, so the make above says whether one ran already.
ifdef LLMPAR_IN_SESSION
running := $(LLMPAR_RUNNING)
else
running := $(BASE_URL)
endif
export LLMPAR_RUNNING := $(running)
server := $(ENGINE)-$(MODEL)-$(patsubst %/,%,$(subst https://,,$(subst http://,,$(running))))
server := $(subst $(empty) $(empty),-,$(server)$(if $(filter-out openai-completions,$(API)),-$(API)))
$(foreach letter,/ $(odd),$(eval server := $$(subst $$(letter),-,$$(server))))
name := $(sweep_name)$(if $(running),@$(server))
RUN := $(RUNS)/$(name)
ruined = $(strip $(if $(word 2,x$1x),blank) $(foreach letter,$(odd),$(findstring $(letter),$1)))
plain = $(if $(strip $2),$(if $(call ruined,$2),$(error $1 is '$2': make cannot use blanks or any of $(odd) there)),$(error $1 is empty))
$(foreach setting,RUNS SWEEP VENV REPEATS SEED,$(call plain,$(setting),$($(setting))))
$(if $(BY),$(call plain,BY,$(BY)))
$(if $(LAUNCHER),$(call plain,LAUNCHER,$(LAUNCHER)))
$(if $(filter-out help,$(MAKECMDGOALS)),$(call plain,this directory,$(CURDIR))$(call plain,the directory of llmpar,$(HERE)))
$(if $(filter . .. ,$(name)),$(error SWEEP '$(SWEEP)' names no table))

export PATH := $(abspath $(VENV))/launcher:$(if $(wildcard $(HERE)/bin),$(abspath $(HERE)/bin):)$(abspath $(VENV))/bin:$(PATH)
export LLMPAR_PYTHON ?= $(abspath $(VENV))/bin/python
export LLMPAR_BASE_URL := $(BASE_URL)
ifeq ($(LLMPAR_BASE_URL),)
unexport LLMPAR_BASE_URL
endif

# The load of each cell from these hosts (LOAD_HOSTS=load1,load2): scripts/load-hosts.
ifneq ($(LOAD_HOSTS),)
export LLMPAR_LOAD_HOSTS := $(LOAD_HOSTS)
endif
export LLMPAR_TABLE := $(SWEEP)

# For scripts/run-session: cells that were asked for by name.
export LLMPAR_GOALS := $(MAKECMDGOALS)

# For BASE_URL: what answers there.
ifneq ($(ENGINE),)
export LLMPAR_ENGINE := $(ENGINE)
endif
ifneq ($(MODEL),)
export LLMPAR_MODEL := $(MODEL)
endif
ifneq ($(API),)
export LLMPAR_API := $(API)
endif

# LLMPAR_INSTALLED: llmpar is an installed package, and `llmpar` has called make. What it needs is looked at each time.
ready := $(if $(LLMPAR_INSTALLED),installed,$(VENV)/.ready-run)
# What a summary is computed with: summaries are remade when it changes, measurements are not.
code := $(wildcard $(addprefix $(package)/,summary/*.py stats/intervals.py stats/batch_means.py stats/order_statistics.py stats/steady.py sampling/*_figures.py records.py))

table_names = $(sort $(foreach folder,$(tables),$(patsubst $(folder)/%.tsv,%,$(wildcard $(folder)/*.tsv $(folder)/*/*.tsv))))

##@ Help

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z0-9-]*:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nSettings (make NAME=value, or in config.mk)\n'
	@printf '  %-18s %s\n' 'SWEEP=$(SWEEP)' 'a table in sweeps/, or the path of one' 'REPEATS=$(REPEATS)' 'repeats of whole server sessions, shuffled by SEED=$(SEED)' 'BASE_URL=' 'use a server that already runs (ENGINE, MODEL, API name it)' 'LAUNCHER=' 'how clients are started, for every cell: threads, asyncio, queue ... (docs/request.md)' 'HOSTS=' 'hosts to measure on, each with engines of its own (docs/hosts.md)' 'LOAD_HOSTS=' 'hosts to send the load from, with commas (docs/hosts.md)' 'RUNS=$(RUNS)' 'where results go' 'SLO=' "objectives, as 'ttft-p95<500ms tpot-p95<50ms': goodput, picks, find"
	@printf '\nTables: %s\n' "$(table_names)"

##@ Measure

# The cell list is made before anything is installed, with the standard library, so that `make -n` is right.
plan = PYTHONPATH=$(package)/.. $(PYTHON) -m llmpar.sweep_folder
ifneq ($(filter sweep table plot measure session-% $(RUN)/%,$(MAKECMDGOALS)),)
$(if $(wildcard $(table))$(SEARCH),,$(error $(shell $(plan) --nearest '$(SWEEP)' $(table_names))))
ifneq ($(HOSTS),)
$(if $(filter-out sweep table,$(MAKECMDGOALS)),$(error HOSTS=$(HOSTS) goes with `make sweep`))
$(if $(running)$(LOAD_HOSTS),$(error HOSTS starts engines on each host: leave BASE_URL and LOAD_HOSTS out, or use LOAD_HOSTS with BASE_URL))
else
include $(RUN)/cells.mk
endif
endif

# A search grows its list of cells by itself: scripts/search names its folder.
ifdef SEARCH
RUN := $(SEARCH)
include $(RUN)/cells.mk
else
$(RUN)/cells.mk: $(table) $(package)/sweeps.py $(package)/sweep_folder.py $(RUN)/.repeats-$(REPEATS)-$(SEED)$(LAUNCHER:%=-%)
	@mkdir -p $(@D)
	@$(plan) $(table) $(sweep_name) $(RUN) $(REPEATS) $(SEED) || \
	  { rm -f $(RUN)/.repeats-*; rmdir --ignore-fail-on-non-empty $(RUN); exit 2; }
endif

# A changed REPEATS or SEED makes the list anew.
$(RUN)/.repeats-$(REPEATS)-$(SEED)$(LAUNCHER:%=-%):
	@mkdir -p $(@D) && rm -f $(@D)/.repeats-* && touch $@

# The records of any number of files: a recipe is one argument, of which Linux takes 128 KiB.
records = $(if $(findstring n,$(firstword -$(MAKEFLAGS))),,$(shell mkdir -p $(dir $1))$(file >$1.list,$2)){ tr ' ' '\n' < $1.list | xargs -r cat && rm -f $1.list; }

summaries = $(CELLS:%=$(RUN)/%/summary.json)
measured = $(CELLS:%=$(RUN)/%/requests.jsonl)

.PHONY: announce
announce:
	@$(plan) --measured $(RUN)

# What HOSTS run, each for itself.
.PHONY: measure
measure: announce $(measured)

ifneq ($(HOSTS),)
export REPEATS SEED
.PHONY: sweep table
sweep table: | $(ready)
	@VENV='$(abspath $(VENV))' $(HERE)/scripts/sweep-hosts "$$HOSTS" $(RUNS) $(sweep_name) $(table)
else
.PHONY: sweep
sweep: announce $(RUN)/sweep.txt $(RUN)/sweep.png ## time every cell of SWEEP that is missing, print the table, name the picture
	@cat $(RUN)/sweep.txt
	@[ ! -e $(RUN)/sweep.png ] || printf '\npicture  %s' $(RUN)/sweep.png
	@printf '\nrecords  %s\n' '$(RUN)/*/requests.jsonl'

.PHONY: table
table: announce $(RUN)/sweep.txt ## the wall-seconds table of SWEEP
	@cat $(RUN)/sweep.txt
endif

.PHONY: plot
plot: $(RUN)/sweep.png ## latency and throughput against clients
	@echo $<

$(RUN)/sweep.txt: $(summaries)
	@$(call records,$@,$^) | llmpar-table -o $@

$(RUN)/sweep.png: $(summaries)
	@$(call records,$@,$^) | llmpar-plot -o $@ || { [ $$? = 6 ] && rm -f $@; } # memory that does not suffice leaves no point to draw

# Objectives for goodput: a folder keeps those that were given last; SLO=none forgets them.
slo := $(subst $(empty) $(empty),-,$(strip $(SLO)))
$(foreach letter,/ $(odd),$(eval slo := $$(subst $$(letter),-,$$(slo))))
ifneq ($(slo),)
$(RUN)/.slo-$(slo): | $(RUN)/cells.mk $(ready)
	@$(HERE)/scripts/objectives $@
endif

$(CELLS:%=$(RUN)/%/summary.json): $(RUN)/%/summary.json: $(slo:%=$(RUN)/.slo-%) $(RUN)/%/requests.jsonl $(code)
	@$(HERE)/scripts/summarise-cell $(RUN) $*

# A measurement is dear: no failing or interrupted recipe may delete one.
.PRECIOUS: $(measured)

ifdef LLMPAR_IN_SESSION
$(measured): $(RUN)/%/requests.jsonl: $(RUN)/%/cell.json
	@$(HERE)/scripts/run-cell $(RUN) $*
else
# Outside a session a cell starts one; the session then measures all of its cells that are missing, so that a server
# starts once for each of its settings. Sessions hold a lock, so `make -j` cannot load one engine twice.
$(measured): $(RUN)/%/requests.jsonl: $(RUN)/%/cell.json | $(ready)
	@$(HERE)/scripts/run-session $(RUN) $*
endif

$(CELLS:%=$(RUN)/%/cell.json): | $(RUN)/cells.mk
	@rm -f $(RUN)/cells.mk && $(MAKE) $(RUN)/cells.mk

# What scripts ask: the name of SWEEP, where results go, which Python. Settings may be in config.mk.
.PHONY: where
where:
	@printf '%s\n' '$(name)' '$(RUNS)' '$(LLMPAR_PYTHON)'

.PHONY: clean-run
clean-run: ## throw the results of SWEEP away
	rm -rf -- '$(RUN)'

##@ Decide

export HOSTS SLO A B BY SPACE MINUTES AXIS MOST PRICE
ifneq ($(filter find decide best,$(MAKECMDGOALS)),)
$(if $(wildcard $(table)),,$(error $(shell $(plan) --nearest '$(SWEEP)' $(table_names))))
endif
searched := $(sweep_name)$(if $(running)$(ENGINE)$(MODEL),@$(server))

.PHONY: find
find: | $(ready) ## the most clients within SLO='ttft-p95<500ms tpot-p95<50ms', of BASE_URL's server or a launched one
	@$(HERE)/scripts/search $(RUNS)/find-$(searched) find $(table)

.PHONY: decide
decide: | $(ready) ## whether A='speculate=0' and B='speculate=2' differ in BY=wall_s, in no more server sessions than it takes
	@$(HERE)/scripts/search $(RUNS)/decide-$(searched) decide $(table)

.PHONY: best
best: | $(ready) ## the best row of SPACE=table.tsv, within SLO= and MINUTES=60
	@$(HERE)/scripts/search $(RUNS)/best-$(searched) best $(table)

##@ The study

results = $(wildcard $(RUNS)/*/*/summary.json)

.PHONY: study
study: | $(ready) ## every sweep of the study that this machine can run (small versions without a GPU)
	@$(HERE)/scripts/study

.PHONY: study-clients study-speculate study-memory study-quantise study-engines study-two-servers study-replicas-or-shards study-gpus study-launcher study-lengths
study-clients study-speculate study-memory study-quantise study-engines study-two-servers study-replicas-or-shards study-gpus study-launcher study-lengths: study-%: | $(ready)
	@$(HERE)/scripts/study $*

.PHONY: claims
claims: | $(ready) ## what the results say of the study's findings
	@$(call records,$(RUNS)/.claims,$(results)) | llmpar-claims

.PHONY: report
report: | $(ready) ## one HTML file of all results, with picks within SLO= (STUDY=1: with the study's)
	@$(call records,$(RUNS)/.report,$(results)) | llmpar-report $(if $(filter-out none,$(slo)),--slo "$$SLO") $(if $(STUDY),--study) $(REPORT) -o $(RUNS)/report.html
	@echo $(RUNS)/report.html

.PHONY: compare
compare: | $(ready) ## which engine (or other setting) is faster, and how surely (BY=engine)
	@$(call records,$(RUNS)/.compare,$(results)) | llmpar-compare --by $(or $(BY),engine)

.PHONY: pick
pick: | $(ready) ## the best cells within SLO='ttft-p95<500ms tpot-p95<50ms' (PICK='--price H100=2.5')
	@$(call records,$(RUNS)/.pick,$(results)) | llmpar-pick $(if $(filter-out none,$(slo)),--slo "$$SLO") $(PICK)

.PHONY: cards
cards: | $(ready) ## which GPU? the study's rows predicted on cards (PROMPTS=DIR: your own lengths; PRICE='4090=0.35 a6000=0.5')
	@llmpar-simulate $(firstword $(wildcard $(tables:%=%/cards.tsv))) $(if $(PROMPTS),--prompts $(PROMPTS),--prompt-tokens 357) $(PRICE:%=--price %) --write $(RUNS)/simulated/cards

##@ Set up and check

.PHONY: setup
setup: $(ready) ## install what the main job needs (a venv; GNU parallel through apt where allowed)

ifdef LLMPAR_INSTALLED
.PHONY: installed
installed:
	@$(HERE)/scripts/setup $(VENV) $(if $(running),plot,plot$(if $(shell grep -l llamacpp $(table)),$(comma)cpu))
else
$(ready): $(HERE)/pyproject.toml
	@$(HERE)/scripts/setup $(VENV) '$(EXTRAS)'
	@touch $@
endif

.PHONY: doctor
doctor: ## what is missing on this machine, and the command that installs or fixes it
	@llmpar-doctor

# Tests, benchmarks and the like, in a checkout only.
-include $(wildcard $(HERE)/develop.mk)
