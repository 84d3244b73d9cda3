# SPDX-License-Identifier: GPL-2.0-or-later
# tuned-virt-plus
#   make help     this list
#   make up       install, activate, verify, show            (root)
#   make install uninstall   files only: DESTDIR=, PREFIX=, SITELIB=  (root)
#   make rpm srpm deb dist man   packages, source archive, manuals, in build/
#   make repo     a repository of these for dnf and apt, in build/repo; URL= KEY=  signed with KEY
#   make collection  the Ansible collection, in build/dist
#   make sbom     what the packages are made of and need, as CycloneDX, in build/dist
#   make check    everything the tests need, then all tiers  (root for the system and VM tiers)
#   make check-quick   style and unit tests of what differs from BASE=HEAD, in seconds
#   make check-style   ruff, mypy --strict, vermin
#   make check-unit    check-style, then the unit tests, with CI=true the large ones too; COV=1 measures coverage
#   make check-browser  pages of report and map in Chromium: whole, readable, closed to scripts
#   make check-system  real TuneD daemons of three generations on this kernel  (root)
#   make check-vm      booted kernels with four NUMA nodes; KERNELS="6.1 6.12"  (root)
#   make check-packages   packages built, installed, upgraded, erased, in folders  (root)
#   make check-fresh   both commands on a minimal Debian in a folder, all of it; SUITES="bookworm trixie"  (root)
#   make check-fresh-ci  the same in minutes: one system test of each plugin  (root)
#   make check-vm-disks   disks of every kind that QEMU emulates, iSCSI, LVM, md, multipath, a guest on LVM  (root)
#   make check-vm-guests  real guests on four nodes: QEMU inside QEMU, minutes  (root)
#   make check-vm-whole   one host lives: pools, KSM, disks, eight guests, a migration, TuneD in a guest, kill -9, off  (root)
#   make check-matrix  kernels x TuneD x cgroups x NUMA nodes, booted with systemd, libvirtd and guests; CELLS="6.12/2.25/v2/4"  (root)
#   make check-matrix-corner  one cell of it  (root)
#   make check-ansible  the collection: lint, documentation, one run against two hosts in namespaces  (root)
#   make check-fleet   all of the collection's tests: a typing error, a failed verify, batches, images  (root)
#   make check-faults  each call of an apply and an off fails once; FAULTS="--sample 100" takes some  (root, hours)
#   make check-faults-sample  what of these fits a minute, by a seed of the commit; part of make check  (root)
#   make check-switches  many profile switches with guests running: nothing grows; N=10000  (root, hours)
#   make soak     random switches, guests, disks, kills, limits; HOURS=1 SOAK="--seed 1"  (root)
#   make fuzz     readers of others' text under atheris; MINUTES=10 FUZZ="domain hook"
#   make check-security  bandit, then the test of each threat in docs/security.md
#   make mutate   do the unit tests notice changes of the pure modules?  MUTATE="placement/* */policy"  (minutes each)
#   make bench    every bench, and docs/performance.md of them; BENCH="--only switch"  (root, an hour)
#   make bench-ksm  KSM's laws against ksmtuned and the kernel; KSM="--runs 1 --only converge"  (root, hours)
#   make bench-report  how long reports of many guests take to write and to open; REPORT="--guests 1000"
#   make bench-fleet-planning  hosts a minute that are planned and audited from snapshots; FLEET="--hosts 100"
#   make bench-metrics  how long a collection of metrics takes; METRICS="--guests 1000"
#   make bench-hugepages  pools against a bare echo and hugeadm; HUGEPAGES="--fragments 8"  (root)
#   make bench-disks  schedulers of 100 disks against TuneD's own plugin; DISKS="--disks 1000"  (root)
#   make bench-placement  the planner against OR-tools, numad and no pinning (minutes; numad: root)
#   make bench-numad  how long libvirt waits for an advice: ours, bare Python, numad itself  (root)
#   make bench-benefit  local memory and waits of guests that we, numad or nobody places; BENEFIT="--rounds 1"  (root, hours)
#   make bench-fleet  what a run of the Ansible role costs; FLEET="--hosts 2,10"  (root)
#   make bench-idle  TuneD's memory, CPU and wake-ups while idle, stock and ours  (root)
#   make bench-pinning  from a guest's start to its last pin, many guests, leaks, idle CPU  (root)
#   make clean    everything made in build/ is deleted

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
PYTHON ?= /usr/bin/python3
DESTDIR ?=
PREFIX ?= /usr
PROFILE ?=
KERNELS ?= 6.1
SUITES ?= bookworm trixie
SYSTEM ?= tests/system
HOURS ?= 1
SITELIB ?= $(shell $(PYTHON) -c 'import os, tuned; print(os.path.dirname(os.path.dirname(tuned.__file__)))' 2>/dev/null)
VENV := build/venv
TOOLS := $(VENV)/ready
MODULES := tuned configobj defusedxml jinja2 jsonschema
LAYOUT = --destdir "$(DESTDIR)" --prefix "$(PREFIX)" --sitelib "$(SITELIB)"
NAME := tuned-virt-plus
VERSION = $(shell $(PYTHON) scripts/release.py version)

.PHONY: help
help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

# --- product -------------------------------------------------------------------------------------

.PHONY: up
up:
	@scripts/alone "make up" scripts/up "$(PROFILE)"

.PHONY: sitelib
sitelib:
	@test -n "$(SITELIB)" || { echo "TuneD is not installed for $(PYTHON); install it or give SITELIB=" >&2; exit 2; }

.PHONY: install
install: sitelib
	@$(PYTHON) scripts/layout.py install $(LAYOUT)

.PHONY: uninstall
uninstall: sitelib
	@$(PYTHON) scripts/layout.py uninstall $(LAYOUT)

# --- packages ------------------------------------------------------------------------------------

.PHONY: man
man:
	@PYTHON=$(PYTHON) scripts/needs $@ $(PYTHON) go-md2man $(addprefix python:,$(MODULES))
	@$(PYTHON) scripts/manuals.py

.PHONY: dist
dist:
	@scripts/needs $@ $(PYTHON)
	@$(PYTHON) scripts/release.py dist

# Debian's rpm knows nothing of what apt has installed, and pytest is in build/venv there.
ON_DEBIAN := $(shell command -v apt-get)
RPMBUILD = rpmbuild --define "_topdir $(CURDIR)/build/rpm" \
    $(if $(ON_DEBIAN),--nodeps --define "test_python $(CURDIR)/$(VENV)/bin/python") $(RPMFLAGS)

.PHONY: needs-rpm
needs-rpm:
	@PYTHON=$(PYTHON) scripts/needs rpm $(PYTHON) rpmbuild go-md2man $(addprefix python:,$(MODULES))

.PHONY: srpm
srpm: dist
	@PYTHON=$(PYTHON) scripts/needs srpm $(PYTHON) rpmbuild
	@mkdir -p build/rpm/SOURCES build/rpm/SPECS
	@cp build/dist/$(NAME)-$(VERSION).tar.gz build/rpm/SOURCES/
	@$(PYTHON) scripts/release.py spec > build/rpm/SPECS/$(NAME).spec
	$(RPMBUILD) -bs build/rpm/SPECS/$(NAME).spec

.PHONY: rpm
rpm: needs-rpm srpm $(if $(ON_DEBIAN),$(TOOLS))
	$(RPMBUILD) -bb build/rpm/SPECS/$(NAME).spec

.PHONY: needs-deb
needs-deb:
	@PYTHON=$(PYTHON) scripts/needs deb $(PYTHON) dpkg-buildpackage dh dh_python3 go-md2man \
	    $(addprefix python:,$(MODULES))

.PHONY: deb
deb: needs-deb dist
	@rm -rf build/deb && mkdir -p build/deb
	@tar -C build/deb -xf build/dist/$(NAME)-$(VERSION).tar.gz
	cd build/deb/$(NAME)-$(VERSION) && dpkg-buildpackage --no-sign --build=binary $(DEBFLAGS)

.PHONY: repo
repo:
	@$(PYTHON) scripts/repo.py --key "$(KEY)" "$(or $(URL),file://$(CURDIR)/build/repo)"

# In an environment of its own: its jsonschema is newer than the one that the product has to work with.
SBOM := build/venv-sbom
$(SBOM)/ready: requirements-sbom.txt | need-unit
	$(PYTHON) -m venv $(SBOM)
	$(SBOM)/bin/pip install --quiet --disable-pip-version-check -r requirements-sbom.txt
	touch $@

.PHONY: sbom
sbom: $(SBOM)/ready
	@$(SBOM)/bin/python -m scripts.sbom

# --- tests ---------------------------------------------------------------------------------------

# A root tier refuses at once where another one runs; then what it needs is installed and fetched.
.PHONY: alone
alone:
	@scripts/alone "make $(MAKECMDGOALS)" true

.PHONY: tools
tools: $(TOOLS)

need-%:
	@scripts/dependencies $*

fetch-%: need-% $(TOOLS)
	@KERNELS="$(KERNELS)" CELLS="$(CELLS)" $(VENV)/bin/python -m tests.prepare $*

$(TOOLS): requirements-dev.txt | need-unit
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

IN_PARALLEL = -n auto --dist worksteal
LARGE ?= $(if $(filter true,$(CI))$(COV),,-m 'not large')
MEASURED = $(if $(filter true,$(CI))$(COV),--cov --cov-report=term:skip-covered)
BASE ?= HEAD

.PHONY: check
check:
	@scripts/alone "make check" scripts/check

.PHONY: check-style
check-style: need-unit $(TOOLS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy tuned_virt
	$(VENV)/bin/mypy --python-version 3.11 tests bench $(wildcard scripts/*.py)
	$(VENV)/bin/vermin --quiet --no-tips --violations -t=3.9- tuned_virt tuned_plugins tests bench scripts setup.py

.PHONY: check-unit
check-unit: fetch-unit check-style
	$(VENV)/bin/python -m pytest tests/unit $(IN_PARALLEL) $(LARGE) $(MEASURED)

.PHONY: check-quick
check-quick: need-unit $(TOOLS)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m scripts.quick "$(BASE)" $(IN_PARALLEL)

.PHONY: check-browser
check-browser: fetch-browser
	$(VENV)/bin/python -m pytest tests/browser

.PHONY: check-system
check-system: alone fetch-system
	scripts/alone "make $@" $(VENV)/bin/python -m pytest $(SYSTEM)

.PHONY: check-vm
check-vm: alone fetch-vm
	scripts/alone "make $@" $(VENV)/bin/python tests/vm/boot.py --kernels "$(KERNELS)" -- \
		--ignore=tests/vm/test_pinning.py --ignore=tests/vm/test_hugepages_guests.py --ignore=tests/vm/test_numad.py \
		--ignore=tests/vm/test_disks.py --ignore=tests/vm/test_disks_guests.py --ignore=tests/vm/test_whole.py

.PHONY: check-vm-disks
check-vm-disks: alone fetch-vm
	scripts/alone "make $@" $(VENV)/bin/python tests/vm/boot.py --kernels 6.1 --limit 1800 -- -k test_disks

.PHONY: check-vm-guests
check-vm-guests: alone fetch-vm
	scripts/alone "make $@" $(VENV)/bin/python tests/vm/boot.py --kernels 6.1 --limit 3600 -- \
		-k "test_pinning or test_hugepages_guests or test_numad"

.PHONY: check-vm-whole
check-vm-whole: alone fetch-vm
	scripts/alone "make $@" $(VENV)/bin/python tests/vm/boot.py --kernels 6.1 --limit 3600 -- -k test_whole -s

# Only emulated machines' kernels are changed, so other tiers may run beside it.
CELLS ?= pairs
.PHONY: check-matrix check-matrix-corner
check-matrix: fetch-matrix
	$(VENV)/bin/python -m tests.matrix "$(CELLS)"
check-matrix-corner:
	@$(MAKE) --no-print-directory check-matrix CELLS=corner

.PHONY: check-packages
check-packages: alone fetch-packages
	scripts/alone "make $@" $(VENV)/bin/python -m pytest tests/packages

.PHONY: check-fresh check-fresh-ci
check-fresh check-fresh-ci: alone need-fresh
	@scripts/alone "make $@" $(PYTHON) -m tests.fresh --suites "$(SUITES)" $(if $(filter %-ci,$@),--brief)

# In an environment of its own: no test has to carry Ansible. The collection is used where it is.
ANSIBLE := build/venv-ansible
$(ANSIBLE)/ready: requirements-ansible.txt | need-ansible
	$(PYTHON) -m venv $(ANSIBLE)
	$(ANSIBLE)/bin/pip install --quiet --disable-pip-version-check -r requirements-ansible.txt
	mkdir -p build/ansible/ansible_collections/tuned_virt
	ln -sfn $(CURDIR)/ansible build/ansible/ansible_collections/tuned_virt/plus
	touch $@

.PHONY: collection
collection: $(ANSIBLE)/ready
	@mkdir -p build/dist
	$(ANSIBLE)/bin/ansible-galaxy collection build --force --output-path build/dist ansible

.PHONY: lint-ansible
lint-ansible: $(ANSIBLE)/ready
	cd ansible && PATH="$(CURDIR)/$(ANSIBLE)/bin:$$PATH" ANSIBLE_COLLECTIONS_PATH=$(CURDIR)/build/ansible \
	    ansible-lint --offline --strict

.PHONY: check-ansible
check-ansible: alone fetch-ansible lint-ansible
	scripts/alone "make $@" $(VENV)/bin/python -m pytest tests/fleet/test_collection.py tests/fleet/test_converge.py

.PHONY: check-fleet
check-fleet: alone fetch-ansible lint-ansible
	scripts/alone "make $@" $(VENV)/bin/python -m pytest tests/fleet

.PHONY: check-faults
check-faults: alone fetch-system
	scripts/alone "make $@" $(VENV)/bin/python -m tests.faults $(FAULTS)

# By chance, with the seed printed: as many as a minute has room for, of the newest TuneD.
.PHONY: check-faults-sample
check-faults-sample:
	@seed=$$(printf %d "0x$$(git rev-parse --short=7 HEAD 2>/dev/null || echo 1)"); \
	$(MAKE) --no-print-directory check-faults FAULTS="--versions latest --seconds 50 --seed $$seed"

.PHONY: check-switches
check-switches: alone fetch-system
	scripts/alone "make $@" $(VENV)/bin/python -m tests.faults.switches $(N) $(SWITCHES)

.PHONY: soak
soak: alone fetch-system
	scripts/alone "make $@" $(VENV)/bin/python -m tests.soak --hours $(HOURS) $(SOAK)

# In an environment of its own: it brings much that nothing else needs.
MUTMUT := build/venv-mutate
$(MUTMUT)/ready: requirements-dev.txt requirements-mutate.txt | need-unit
	$(PYTHON) -m venv --system-site-packages $(MUTMUT)
	$(MUTMUT)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -r requirements-mutate.txt
	touch $@

.PHONY: mutate
mutate: $(MUTMUT)/ready
	@set -f; $(MUTMUT)/bin/python scripts/mutate.py $(if $(FRESH),--fresh) -- $(MUTATE)

MINUTES ?= 10
FUZZERS := build/venv-fuzz
$(FUZZERS)/ready: requirements-dev.txt requirements-fuzz.txt | need-unit
	$(PYTHON) -m venv --system-site-packages $(FUZZERS)
	$(FUZZERS)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -r requirements-fuzz.txt
	touch $@

.PHONY: fuzz
fuzz: $(FUZZERS)/ready
	@$(FUZZERS)/bin/python -m tests.fuzz --minutes $(MINUTES) $(FUZZ)

# Each line of the table of threats names its tests by their path below tests/unit.
THREATS = $(addprefix tests/unit/,$(shell grep -o '[a-z_/]*test_[a-z_]*\.py' docs/security.md | sort -u))

.PHONY: check-security
check-security: fetch-unit $(TOOLS)
	$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive tuned_virt tuned_plugins scripts setup.py
	$(VENV)/bin/python -m pytest --quiet $(THREATS)

.PHONY: bench
bench: alone need-bench fetch-system
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	scripts/alone "make $@" $(VENV)/bin/python -m bench.page $(BENCH)

.PHONY: bench-report
bench-report: fetch-browser
	$(VENV)/bin/python -m bench.report $(REPORT)

.PHONY: bench-fleet-planning
bench-fleet-planning: need-bench $(TOOLS)
	$(VENV)/bin/python -m bench.fleet_planning $(FLEET)

.PHONY: bench-metrics
bench-metrics: need-unit $(TOOLS)
	$(VENV)/bin/python -m bench.metrics $(METRICS)

.PHONY: bench-ksm
bench-ksm: alone need-bench $(TOOLS)
	scripts/alone "make $@" $(VENV)/bin/python -m bench.ksm $(KSM)

.PHONY: bench-hugepages
bench-hugepages: alone need-bench $(TOOLS)
	scripts/alone "make $@" $(VENV)/bin/python -m bench.hugepages $(HUGEPAGES)

.PHONY: bench-disks
bench-disks: alone need-bench $(TOOLS)
	scripts/alone "make $@" $(VENV)/bin/python -m bench.disks $(DISKS)

.PHONY: bench-placement
bench-placement: need-bench $(TOOLS)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	$(VENV)/bin/python -m bench.placement
	$(VENV)/bin/python -m bench.hostile

.PHONY: bench-numad
bench-numad: alone need-unit $(TOOLS)
	scripts/alone "make $@" $(VENV)/bin/python -m bench.numad

.PHONY: bench-benefit
bench-benefit: alone fetch-vm
	scripts/alone "make $@" $(VENV)/bin/python -m bench.benefit $(BENEFIT)

.PHONY: bench-pinning
bench-pinning: alone need-bench $(TOOLS)
	scripts/alone "make $@" $(VENV)/bin/python -m bench.pinning

.PHONY: bench-fleet
bench-fleet: alone fetch-ansible $(ANSIBLE)/ready
	scripts/alone "make $@" $(VENV)/bin/python -m bench.fleet $(FLEET)

.PHONY: bench-idle
bench-idle: alone need-bench fetch-system
	scripts/alone "make $@" $(VENV)/bin/python -m bench.idle $(IDLE)

.PHONY: clean
clean:
	rm -rf build
