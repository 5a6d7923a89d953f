# Soundbox: every command a newcomer or CI needs. `make` alone lists them.
SHELL := /bin/bash
TAP := node_modules/.bin/tap
FILE ?= dist/test/tidy.test.js
SEEDS ?= 3
N ?= 100
# Their secrets; in a file for each N, as they are told once.
BOXES = data/sim-$(N).jsonl

.PHONY: help install build check test test-one test-system flow fuzz bench run agent sim fleet clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit --no-fund
	@touch $@

install: node_modules/.package-lock.json ## install the dependencies that package-lock.json names

build: install ## compile to dist/
	node test/support/build.mjs

check: build ## types, house rules and lint, without running the product
	node_modules/.bin/biome lint --error-on-warnings
	node test/support/run-tap.mjs dist/test/tidy.test.js

test: build ## all tests that npm alone can provide
	node test/support/run-tap.mjs dist/test

test-one: build ## one test file: make test-one FILE=dist/test/protocol/money.test.js
	$(TAP) --reporter=tap $(FILE)

test-system: build ## the product against real parts (PostgreSQL, Mosquitto, Chromium, ...); a missing part is a skip, in CI a failure
	node test/support/run-tap.mjs dist/test/system

flow: build ## the flow tests alone
	node test/support/run-tap.mjs dist/test/flow

fuzz: build ## the seeded tests with more seeds: make fuzz SEEDS=50
	SEEDS=$(SEEDS) node test/support/run-tap.mjs dist/test

bench: build ## measure, print ratios, warn beyond 20 percent of the baseline; BENCH=trigger runs one
	node dist/test/bench/main.js

run: build ## start everything, post one encrypted trigger, hear three soundboxes; Ctrl-C stops it
	@node dist/gateway/cli/main.js demo

agent: build ## a device agent; settings in README
	node dist/device-agent/main.js

sim: build $(BOXES) ## one simulated soundbox of the running `make run`
	node dist/firmware-sim/main.js mqtt --credentials $(BOXES) --devices 1

fleet: build $(BOXES) ## N simulated soundboxes of the running `make run`: make fleet N=100
	node dist/firmware-sim/main.js mqtt --credentials $(BOXES) --devices $(N)

$(BOXES): | build
	umask 077; mkdir -p $(@D) && node dist/gateway/cli/main.js device add SIM$(N) --count $(N) --bank demo --json > $@.new && mv $@.new $@

clean: ## remove what was built; data/ stays
	rm -rf dist .tap
