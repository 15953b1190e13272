# All that a newcomer must know: `make book`, `make test`. The rest: CONTRIBUTING.md.
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
SITE := _build/html/index.html
# One thread, so that the last digits of a training do not depend on the machine's
# cores; two workers, whole files to each, as a notebook's cells share one kernel
# (conftest.py says which files are split).
ONE := OMP_NUM_THREADS=1 PYTHONHASHSEED=0
PYTEST := $(ONE) $(BIN)/python -m pytest -n 2 --dist loadfile --durations=10
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout=300
.PHONY: book test unit chapters refresh stamp shots weigh pages pdf answers epub portable bench mutants lint lab clean

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

book: .venv/.installed  ## the site, warnings as errors
	$(BIN)/jupyter-book build -W --keep-going -n -q --all .
	@echo "The book: $(CURDIR)/$(SITE)"

test: book  ## unit tests, notebooks, hygiene, site
	$(PYTEST) $(NBVAL) tests chapters

unit: .venv/.installed  ## all but the notebooks and the site
	$(PYTEST) tests --ignore=tests/site

chapters: .venv/.installed  ## the notebooks alone, outputs compared
	$(PYTEST) $(NBVAL) chapters

refresh: .venv/.installed  ## make refresh CH=02 re-runs 02*.ipynb and writes it back
	$(ONE) $(BIN)/python tools/refresh.py chapters/$(CH)*.ipynb

stamp: .venv/.installed  ## write address and version into README, CITATION and cells
	$(BIN)/python tools/stamp.py

shots: book  ## one contact sheet per page, in _build/shots
	$(BIN)/python tools/shots.py

weigh: book  ## what a page costs a slow phone; BEFORE=../old/_build/html beside another
	$(BIN)/python tools/weigh.py $(if $(BEFORE),--before $(BEFORE))

pdf: book  ## the whole book as _build/book.pdf; needs Chromium
	$(BIN)/python tools/make_pdf.py

answers: book  ## for teachers: all exercises with solutions, _build/answers.html and .pdf
	$(BIN)/python tools/make_answers.py

epub: .venv/.installed  ## the whole book as _build/book.epub
	$(BIN)/python tools/make_epub.py

pages: book  ## every page in the browser, where `make test` takes a sample
	ADVLIB_ALL_PAGES=1 $(PYTEST) tests/site tests/play

portable: .venv/.installed  ## do the printed digits survive other arithmetic?
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=2 PYTHONHASHSEED=0 $(BIN)/python -m pytest $(NBVAL) chapters

bench: .venv/.installed  ## beside the peers: benchmarks/README.md; about an hour
	$(ONE) $(BIN)/python -m benchmarks

mutants: .venv/.installed  ## planted bugs, each of which the tests must catch
	$(ONE) $(BIN)/python tools/mutants.py

lint: .venv/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell

lab: .venv/.installed
	ADVLIB_PROGRESS=1 $(BIN)/jupyter lab chapters

clean:
	rm -rf _build dist .pytest_cache .hypothesis .ruff_cache
