# make demo | test | check | docs | bench | fuzz | mutants | soak | package | … | clean.   PYTHON=python3.12 chooses the Python.
.PHONY: help demo test check docs reference bench fuzz mutants soak screenshots mac-acceptance package package-check lock format clean
PY = .venv/bin/python
TEST_JOBS = 3
PYTEST_FLAGS =
BENCH =
DEMO_FLAGS =
MUTANTS_FLAGS =
ACCEPTANCE =
export PYTHON

help:
	@echo "make demo     the whole path on this machine: harvest, verify, serve, open a crash dump"
	@echo "make test     the tests"
	@echo "make check    style and types"
	@echo "make docs     the site of the documentation, in build/site"
	@echo "make reference   docs/reference and docs/man from the code"
	@echo "make bench    speed against peers, as a table and bench.json; BENCH=full-release: a whole release of full size"
	@echo "make fuzz     hostile input for a bounded time"
	@echo "make mutants  changes of the code that keeps promises, and which of them no test notices"
	@echo "make screenshots  the pictures of the server's pages in README and docs, by Chromium"
	@echo "make soak     faults for an hour and a half: kills, a full disk, odd Macs, silent clients by the thousand, other LLDBs"
	@echo "make package  dist/: sdist, wheel and SBOM; make package-check: whether they can be installed, and what stands in deploy/"
	@echo "make lock     deploy/*requirements.txt anew, with the newest versions"
	@echo "make mac-acceptance   on a real Mac: what is true there, as two files to send (docs/mac-acceptance.md)"

demo:
	@.ci/bootstrap demo
	@.venv/bin/symcache demo $(DEMO_FLAGS)

test:
	@.ci/bootstrap test
	@$(PY) -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_FLAGS)

check:
	@.ci/bootstrap test
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

docs: reference
	@.ci/bootstrap docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict
	@echo "build/site/index.html"

reference:
	@.ci/bootstrap demo
	@$(PY) -m tests.reference

mac-acceptance:
	@.ci/bootstrap demo
	@$(PY) -m tests.acceptance $(ACCEPTANCE)

format:
	@.ci/bootstrap test
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench:
	@.ci/bootstrap bench
	@$(PY) -m tests.bench $(BENCH)

fuzz:
	@.ci/bootstrap fuzz
	@$(PY) -m tests.fuzz

mutants:
	@.ci/bootstrap mutants
	@$(PY) -m tests.mutants $(MUTANTS_FLAGS)

soak:
	@.ci/bootstrap test
	@SYMCACHE_TEST_ACCEPTANCE=1 $(PY) -m pytest -s $(PYTEST_FLAGS) tests/acceptance/test_acceptance.py
	@SYMCACHE_TEST_KILLS=200 SYMCACHE_TEST_HARVEST_KILLS=60 SYMCACHE_TEST_STORE_KILLS=30 SYMCACHE_TEST_FULL_DISK_SECONDS=1800 \
		SYMCACHE_TEST_MAC_FAULTS=1 SYMCACHE_TEST_CROWD_SECONDS=1800 SYMCACHE_TEST_LLDBS=.cache/lldbs \
		SYMCACHE_TEST_NAMES=10000 SYMCACHE_TEST_PROFILER_CLI=.cache/profiler-cli SYMCACHE_TEST_SYNC_YEARS=3 \
		SYMCACHE_TEST_EVERY_SCREEN=1 \
		$(PY) -m pytest -s --timeout=3600 $(PYTEST_FLAGS) \
		tests/library/test_killed.py tests/library/test_store_killed.py tests/library/test_full_disk.py \
		tests/vm_provisioning/test_killed_harvest.py tests/vm_provisioning/test_mac_faults.py tests/vm_provisioning/builds/test_year.py tests/cli/test_sync.py \
		tests/server/test_crowd.py tests/dump/lldb_command/test_table.py \
		tests/symbolicate/test_real_images.py tests/server/symbolicate/test_clients.py tests/server/pages/test_browser.py

screenshots:
	@.ci/bootstrap test
	@$(PY) -m tests.server.pages.screenshots docs/screenshots

package:
	@.ci/package build

package-check: package
	@.ci/package check

lock:
	@.ci/package lock

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache build dist
