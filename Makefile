# Every target does its own set-up, in .venv and build/, and never needs root. README.md gives the commands behind each.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench sanitize coverage fuzz clean check run-sanitized run-covered

PYTHON ?= python3
CC_USED := $(if $(filter default undefined,$(origin CC)),gcc,$(CC))
on = $(filter-out 0,$(DEDUPCORE_$(1)))
# One environment for each kind of build, so that they never mix.
FLAVOUR := $(if $(call on,SANITIZE),-asan)$(if $(call on,DEBUG),-debug)$(if $(call on,COVERAGE),-coverage)
VENV := .venv$(FLAVOUR)
DIST := build/dist$(FLAVOUR)
RUN := $(VENV)/bin/python -P
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet --constraint requirements-dev.txt
ABI := $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))' 2>/dev/null)
MADE := $(VENV)/.made-$(ABI)
SOURCES := setup.py pyproject.toml MANIFEST.in $(shell find src python \( -name __pycache__ -o -name '*.egg-info' \) -prune \
	-o ! -name '*.so' ! -name '*.a' -print)

unexport PYTHONPATH PYTHONHOME

help:
	@echo "make demo      set up, build, and scan several live processes"
	@echo "make test      build as users get it, install, check and test that"
	@echo "make bench     compare with peers and with the physical limit; fails below a floor"
	@echo "make sanitize  the unit and property tests under AddressSanitizer and UBSan"
	@echo "make coverage  which lines of the C core these tests reach"
	@echo "make fuzz      feed broken dumps and binaries to their readers, for FUZZ_SECONDS=60 each"
	@echo "make lint      ruff, mypy --strict, and the C core without a warning"
	@echo "make clean     remove all that these made"
	@echo "PYTHON=python3.13 chooses the interpreter, CC=clang the compiler."

check:
	@scripts/check_machine.sh "$(PYTHON)" $(firstword $(MAKECMDGOALS))

# The stamps are the last thing that a rule makes: what a failing or interrupted step leaves is made anew.
$(MADE): requirements-dev.txt | check
	@echo "== making $(VENV)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) build setuptools cython
	@touch $@

$(DIST)/.built: $(SOURCES) $(MADE) | check
	@echo "== building the source distribution, and from it the wheel (log: $(DIST).log)"
	@rm -rf $(DIST) python/*.egg-info
	@mkdir -p $(DIST)
	@$(RUN) -m build --no-isolation --outdir $(DIST) . > $(DIST).log 2>&1 || { cat $(DIST).log; exit 1; }
	@touch $@

$(VENV)/.installed: $(DIST)/.built
	@echo "== installing the wheel in $(VENV)"
	@rm -f $@
	@$(RUN) -m pip --disable-pip-version-check uninstall --quiet --yes pagedup 2> /dev/null
	@$(PIP) $(DIST)/pagedup-*.whl
	@touch $@

$(VENV)/.tools: $(MADE)
	@echo "== installing the development tools in $(VENV)"
	@$(PIP) --requirement requirements-dev.txt
	@touch $@

demo: $(VENV)/.installed
	@$(VENV)/bin/python demo/demo.py

lint: $(VENV)/.tools
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	@for optimize in -O0 "-O3 -DNDEBUG"; do for source in src/dedupcore/*.c; do \
		$(CC_USED) -std=c11 $$optimize -Wall -Wextra -Wpedantic -Werror -Isrc/dedupcore/include -Isrc/dedupcore \
			-c -o /dev/null "$$source" || exit 1; done; done
	@echo "C: no warnings"

test: lint $(VENV)/.installed
	$(RUN) -m pytest $(PYTEST_ARGS)

bench: $(VENV)/.tools $(VENV)/.installed
	@$(VENV)/bin/python -m benchmarks $(BENCH_ARGS)

# libasan must come first in the process. libstdc++ too, or its exceptions (NumPy throws some) end the process.
sanitize: check
	@DEDUPCORE_SANITIZE=1 $(MAKE) --no-print-directory run-sanitized

run-sanitized: $(VENV)/.tools $(VENV)/.installed
	LD_PRELOAD="$$($(CC_USED) -print-file-name=libasan.so) $$($(CC_USED) -print-file-name=libstdc++.so.6)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		$(RUN) -m pytest tests/unit tests/property $(PYTEST_ARGS)

coverage: check
	@DEDUPCORE_COVERAGE="$(CURDIR)/build/coverage" $(MAKE) --no-print-directory run-covered

run-covered: $(VENV)/.tools $(VENV)/.installed
	@find build/coverage -name '*.gcda' -delete
	$(RUN) -m pytest tests/unit tests/property $(PYTEST_ARGS)
	@gcov --no-output --relative-only --object-directory build/coverage/src/dedupcore src/dedupcore/*.c

# In an environment of its own, since atheris has no wheels for every Python. New inputs stay in build/fuzz.
FUZZ_SECONDS ?= 60
ATHERIS := 3.0.0

.venv-fuzz/.made-$(ABI): $(DIST)/.built
	@echo "== making .venv-fuzz"
	@rm -rf .venv-fuzz
	@$(PYTHON) -m venv .venv-fuzz
	@.venv-fuzz/bin/python -P -m pip --disable-pip-version-check install --quiet --constraint requirements-dev.txt \
		atheris==$(ATHERIS) lief $(DIST)/pagedup-*.whl
	@touch $@

FUZZ_ARGS = -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1

fuzz: .venv-fuzz/.made-$(ABI)
	@mkdir -p build/fuzz build/fuzz-images
	.venv-fuzz/bin/python -m tests.fuzz.fuzz_dumps $(FUZZ_ARGS) -max_len=4096 \
		-artifact_prefix=build/fuzz/ build/fuzz tests/fuzz/corpus
	.venv-fuzz/bin/python -m tests.fuzz.fuzz_images $(FUZZ_ARGS) -max_len=8192 \
		-artifact_prefix=build/fuzz-images/ build/fuzz-images tests/fuzz/image_corpus

clean:
	rm -rf .venv .venv-* build dist python/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	rm -f src/dedupcore/*.so src/dedupcore/*.a
	find src python tests benchmarks demo -name __pycache__ -type d -prune -exec rm -rf {} +
