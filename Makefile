# One command for each thing a newcomer wants to do. `make` alone lists them.
#
# Everything is installed into .venv, nothing into the system's Python. A stamp file per set of
# packages remembers what is there, so only the first call takes its time. Each set is a file of
# packaging/locks: versions and hashes, so pip refuses what nobody here has seen.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
CORES := $(shell nproc)
PIP := $(BIN)/pip --disable-pip-version-check -qq
LOCKED := $(PIP) install --require-hashes --requirement
# Covey itself: its packages are there already, and so is what builds it.
COVEY := $(PIP) install --no-deps --no-build-isolation --editable .
# A mirror that does not answer once is asked again, as pip does.
APT := apt-get -o Acquire::Retries=5
STAMPS := .venv/.stamps
LOCKS := packaging/locks

# What the tests with real processes use: name of a program, and the Debian package it is in.
PROGRAMS := ip:iproute2 nft:nftables mosquitto:mosquitto faketime:faketime \
            systemd-analyze:systemd bash:bash zsh:zsh fish:fish
DEVICE_PROGRAMS := podman:podman runc:runc debootstrap:debootstrap ip:iproute2 \
                   /usr/lib/cni/bridge:containernetworking-plugins nsenter:util-linux
BENCH_PROGRAMS := ip:iproute2 nft:nftables mosquitto:mosquitto serf:serf etcd:etcd-server

.DEFAULT_GOAL := help
.PHONY: help demo test check lint format map soak soak-nodes soak-owners soak-watches soak-counting soak-expiring soak-consensus soak-voters soak-recoveries soak-registry fuzz clean debian devices bare fresh release test-compiled lock base bench \
        bench-idle bench-cli bench-start bench-seal bench-telemetry bench-ingest bench-membership \
        bench-lifeguard bench-simulator bench-doors bench-consensus-log bench-control bench-state

help:  ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- set-up -------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Covey needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	    echo "the venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(STAMPS)/demo: $(BIN)/python pyproject.toml $(LOCKS)/demo.txt
	@echo "installing covey and the demo's broker into .venv"
	@$(LOCKED) $(LOCKS)/demo.txt && $(COVEY)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/test: $(BIN)/python pyproject.toml $(LOCKS)/test.txt
	@echo "installing covey and the test tools into .venv"
	@$(LOCKED) $(LOCKS)/test.txt && $(COVEY)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/bench: $(STAMPS)/test $(LOCKS)/bench.txt
	@echo "installing what covey is compared with into .venv"
	@$(LOCKED) $(LOCKS)/bench.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/compiled: $(STAMPS)/test $(LOCKS)/compiled.txt
	@echo "installing what compiles gossip/ into .venv"
	@$(LOCKED) $(LOCKS)/compiled.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/release: $(BIN)/python $(LOCKS)/release.txt
	@echo "installing what builds a release into .venv"
	@$(LOCKED) $(LOCKS)/release.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/lock: $(BIN)/python $(LOCKS)/lock.txt
	@echo "installing what makes the locks into .venv"
	@$(LOCKED) $(LOCKS)/lock.txt
	@mkdir -p $(STAMPS) && touch $@

# As root, fetch the Debian packages that are missing; otherwise say which tests will skip.
# RUNLEVEL=1 keeps a package from starting its service: the tests start their own brokers.
debian:
	@missing=""; for pair in $(PROGRAMS); do \
	    PATH="$$PATH:/usr/sbin:/sbin" command -v "$${pair%%:*}" >/dev/null \
	        || missing="$$missing $${pair##*:}"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	    echo "not here:$$missing - the tests that need them will skip" >&2; exit 0; fi; \
	echo "installing Debian packages:$$missing"; \
	export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	$(APT) update -qq && $(APT) install -y -qq --no-install-recommends $$missing >/dev/null

# --- use ----------------------------------------------------------------------------------

demo: $(STAMPS)/demo  ## three agents, a broker, a live screen; CHECK=1 runs it unattended
	@$(BIN)/covey demo $(if $(CHECK),--check)

# --- development --------------------------------------------------------------------------

lint: $(STAMPS)/test  ## ruff, the formatter, mypy --strict over code and tests
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format" >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary

# Some tests wait for what takes its time: one worker more than there are cores keeps the cores
# at work meanwhile. Neighbours stay together, so what a file reads once is read once.
SHARED = -n $$(($$(nproc) + 1)) --dist worksteal

check: lint  ## lint and the fast tests, some two minutes on two cores
	@$(BIN)/pytest -q $(SHARED) -m 'not live and not devices and not slow'

# A test with real processes that failed is tried once more, alone. What fails twice fails; what failed
# once is named by both tries, and is a fault to find all the same. Pure tests have no second try.
define tried_twice
$(BIN)/pytest -q $(1) $(2) || { [ $$? = 1 ] && echo "what failed is tried once more, alone" && \
	    $(BIN)/pytest -q -rA --show-capture=no --last-failed --last-failed-no-failures none --maxfail=1 $(2); }
endef

# Pure tests share the cores. Those with real processes mostly wait, so two files of them go at
# once, each on networks of its own; a few need the machine for themselves.
test: lint debian  ## everything, with real processes, brokers and network namespaces
	@$(BIN)/pytest -q $(SHARED) -m 'not live and not devices'
	@$(call tried_twice,-n 2 --dist loadfile,-m 'live and not alone' tests/live)
	@$(call tried_twice,,-m 'live and alone' tests/live)

devices: PROGRAMS := $(DEVICE_PROGRAMS)
devices: export DEVICES_SUITE := $(or $(SUITE),bookworm)
devices: $(STAMPS)/test debian  ## Debian with systemd in containers; SUITE=trixie for the newer one
	@$(call tried_twice,,-m devices tests/devices)

bare: PROGRAMS := $(DEVICE_PROGRAMS)
bare: $(STAMPS)/test debian  ## the demo in a Debian that has Python, pip and make alone; SUITE=trixie
	@$(BIN)/python -m tests.devices.bare $(or $(SUITE),bookworm) make demo CHECK=1

# Before each release. Debian 13 may make networks, so all tests run there; Debian 12 may not, as
# in most containers, and its tests say what they skip.
fresh: PROGRAMS := $(DEVICE_PROGRAMS)
fresh: $(STAMPS)/test debian  ## the README's two commands in bare Debians, 12 and 13; devices with both
	@$(MAKE) --no-print-directory bare SUITE=bookworm
	@$(MAKE) --no-print-directory bare SUITE=trixie
	@$(BIN)/python -m tests.devices.bare bookworm make test
	@$(BIN)/python -m tests.devices.bare --privileged trixie make test
	@$(MAKE) --no-print-directory devices SUITE=bookworm
	@$(MAKE) --no-print-directory devices SUITE=trixie

release: $(STAMPS)/release $(if $(COMPILED),$(STAMPS)/compiled)  ## build wheel and sdist into dist/, twice, and try them; COMPILED=1 adds a compiled wheel; uploads nothing
	@packaging/release.sh $(BIN)/python $(if $(COMPILED),compiled)

# The C compiler takes minutes, so it is asked only where a source, or how it is compiled, changed.
COMPILED_IN := build/compiled$(if $(ROOMS),-some)
$(COMPILED_IN)/gossip: $(STAMPS)/compiled $(wildcard packaging/compiled/*) $(shell find gossip -name '*.py')
	@echo "compiling gossip/ into $(COMPILED_IN)"
	@$(BIN)/python packaging/compiled/build.py $(COMPILED_IN) $(ROOMS)
	@touch $@

COMPILED_TESTS := tests/unit/gossip $(addprefix tests/sim/test_, transcripts.py consensus_transcripts.py kv.py events.py)

test-compiled: $(COMPILED_IN)/gossip  ## the protocols' tests and some simulations on compiled code; ROOMS="core membership" compiles less
	@$(BIN)/pytest -q $(SHARED) --compiled -o pythonpath='$(COMPILED_IN) .' \
	    -m 'not slow and not interpreted' $(COMPILED_TESTS)

lock: $(STAMPS)/lock  ## pin what pyproject.toml asks for in packaging/locks; OPTIONS=--upgrade for what is new
	@packaging/lock.sh $(BIN)/uv $(OPTIONS)

base: PROGRAMS := skopeo:skopeo
base: debian  ## pin the image that the container begins with, as its registry has it today
	@packaging/container/pin.sh

format: $(STAMPS)/test  ## let ruff lay the code out and mend what it can
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

map: $(STAMPS)/test  ## every file, by folder, with its first line; ROOM=gossip/kv for one folder
	@$(BIN)/python -m tests.support.house_map $(ROOM)

soak: soak-nodes soak-owners soak-watches soak-counting soak-expiring soak-consensus soak-voters soak-recoveries soak-registry  ## many simulator seeds; SEEDS=0:1000 says which

soak-nodes: $(STAMPS)/test  ## of it, whole nodes under all kinds of faults
	@$(BIN)/python -m tests.sim.campaign --jobs $(CORES) $(if $(SEEDS),--seeds $(SEEDS))

soak-owners: $(STAMPS)/test  ## of it, 20,000 schedules in which the owners of keys change
	@$(BIN)/python -m tests.sim.owners_campaign --jobs $(CORES) $(if $(SEEDS),--seeds $(SEEDS))

soak-watches: $(STAMPS)/test  ## of it, 2,000 of these in which clients watch
	@$(BIN)/python -m tests.sim.watching_campaign --jobs $(CORES) $(if $(SEEDS),--seeds $(SEEDS))

soak-counting: $(STAMPS)/test  ## of it, 5,000 schedules of owners with counters and sets
	@$(BIN)/python -m tests.sim.counting_campaign --jobs $(CORES) $(if $(SEEDS),--seeds $(SEEDS))

soak-expiring: $(STAMPS)/test  ## of it, 5,000 schedules in which values expire and clocks jump
	@$(BIN)/python -m tests.sim.expiring_campaign --jobs $(CORES) $(if $(SEEDS),--seeds $(SEEDS))

soak-consensus: $(STAMPS)/test  ## of it, 2,000 schedules of a Raft group, with voters that change
	@$(BIN)/python -m tests.sim.consensus_campaign --jobs $(CORES) $(if $(SEEDS),--seeds $(SEEDS))

soak-voters: $(STAMPS)/test  ## of it, 500 schedules in which a covey's voters grow, and are replaced
	@$(BIN)/python -m tests.sim.voters $(if $(SEEDS),--seeds $(SEEDS))

soak-recoveries: $(STAMPS)/test  ## of it, 500 schedules in which a covey's voters are lost, and it goes on without
	@$(BIN)/python -m tests.sim.recoveries $(if $(SEEDS),--seeds $(SEEDS))

soak-registry: $(STAMPS)/test  ## of it, 100,000 schedules in which who belongs changes through the log
	@$(BIN)/python -m tests.sim.registry_campaign --jobs $(CORES) $(if $(SEEDS),--seeds $(SEEDS))

fuzz: $(STAMPS)/test  ## hostile input for ten minutes; SECONDS=60 SEED=7 say how long and from where
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) --seed $(or $(SEED),0)

bench: PROGRAMS := $(BENCH_PROGRAMS)
bench: $(STAMPS)/bench debian  ## measure everything, for an hour or more; OPTIONS=--quick for less
	@$(BIN)/python -m bench.all $(OPTIONS)

bench-idle: PROGRAMS := $(BENCH_PROGRAMS)
bench-idle: $(STAMPS)/test debian  ## memory, CPU and traffic of ten idle agents, beside Serf
	@$(BIN)/python -m bench.idle

bench-cli: $(STAMPS)/test  ## cold start of the command line
	@$(BIN)/python -m bench.cli

bench-start: $(STAMPS)/test  ## processor time that an agent takes to start
	@$(BIN)/python -m bench.start

bench-seal: $(STAMPS)/test  ## packets sealed and opened a second
	@$(BIN)/python -m bench.seal

bench-doors: $(STAMPS)/test  ## what a stranger's knock costs; OPTIONS="--tree DIR" for other code
	@$(BIN)/python -m bench.doors $(OPTIONS)

bench-consensus-log: $(STAMPS)/test  ## bytes and commits of the log that voters agree on
	@$(BIN)/python -m bench.consensus_log

bench-control: PROGRAMS := $(BENCH_PROGRAMS)
bench-control: $(STAMPS)/test debian  ## writes, reads, a leader's death beside etcd; OPTIONS="--quick", "--joining 100", "--followers 100"
	@$(BIN)/python -m bench.control $(OPTIONS)

bench-state: PROGRAMS := $(BENCH_PROGRAMS)
bench-state: $(STAMPS)/bench debian  ## puts and gets beside etcd; balance, repair, memory; OPTIONS=--quick
	@$(BIN)/python -m bench.state $(OPTIONS)

bench-telemetry: $(STAMPS)/test debian  ## readings accepted and delivered a second
	@$(BIN)/python -m bench.telemetry

bench-ingest: $(STAMPS)/test  ## how long the event loop stands still while much arrives
	@$(BIN)/python -m bench.ingest

bench-membership: PROGRAMS := $(BENCH_PROGRAMS)
bench-membership: $(STAMPS)/bench debian  ## crashes, loss, joining, healing beside Serf and kinship; OPTIONS=--quick
	@$(BIN)/python -m bench.membership $(OPTIONS)

bench-lifeguard: $(STAMPS)/test  ## slow members in the simulator, beside the Lifeguard paper; OPTIONS=--quick
	@$(BIN)/python -m bench.lifeguard $(OPTIONS)

bench-simulator: $(STAMPS)/test  ## seconds of a node a second; a thousand members, ten thousand; OPTIONS=--small
	@$(BIN)/python -m bench.simulator $(OPTIONS)

clean:  ## remove .venv and every cache
	@rm -rf .venv .cache build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
