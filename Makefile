# `make` prints this help. Every target makes the virtual environment first if it is missing.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
READY = $(VENV)/.ready
# -n auto runs as many tests at a time as there are cores; each computes with one thread.
.DEFAULT_GOAL := help
.PHONY: help demo demo-zh-en demo-speech demo-formula pictures notebooks museum docs live test test-fast test-library test-live test-versions coverage check release-check

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,viz,demo,embeddings,argos,onnx,serve,dev]'
	@touch $@

demo: $(READY)  ## use the models of the checkout, then train one: letters to phonemes (about five minutes on two cores)
	$(PY) -m examples.demo hub_configs/g2p-en/recipe.yaml runs/demo

demo-zh-en: $(READY)  ## Chinese to English on 4,000 HSK sentences: the same flow, a toy
	$(PY) -m examples.demo hub_configs/zh-en-tiny/recipe.yaml runs/demo-zh-en

# The recordings of the Free Spoken Digit Dataset, where they are at hand; else eSpeak NG speaks (pip install '.[speech]').
FSDD ?= ../shared/data/fsdd/recordings.tar.xz
SPOKEN = data/spoken-digits
ESPEAK = $(foreach part,train validation test,--data.$(part).dataset=builtin:espeak-digits --data.$(part).source_column=source --data.$(part).target_column=target)

demo-speech: $(READY)  ## spoken digits to words, and what the model listens to (about five minutes on two cores)
	if [ -e $(FSDD) ]; then \
		$(PY) -m benchmarks.spoken_digits_data $(FSDD) $(SPOKEN) && \
		$(PY) -m examples.demo hub_configs/spoken-digits/recipe.yaml runs/demo-speech; \
	else \
		$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[speech]' && \
		$(PY) -m examples.demo hub_configs/spoken-digits/recipe.yaml runs/demo-speech --data.name=espeak-digits $(ESPEAK); \
	fi

demo-formula: $(READY)  ## pictures of formulas to LaTeX, and what the model looks at (about ten minutes on two cores)
	$(PY) -m examples.demo hub_configs/formula-latex/recipe.yaml runs/demo-formula

RESULTS = training-h200 translation-cpu sizes-cpu complexity-cpu lineage-tatoeba lineage-reverse equal-time-g2p speech-cpu
pictures: $(READY)  ## rebuild the pictures of docs/images, from the examples and from benchmarks/results (three minutes)
	for name in masks attention_by_hand positions learning_rates word_vectors reverse figure_1 bpe beam_search label_smoothing; do $(PY) -m examples.$$name docs/images || exit 1; done
	for name in $(RESULTS); do $(PY) -m benchmarks.chart benchmarks/results/$$name.json docs/images/$$name.svg || exit 1; done
	$(PY) -m benchmarks.chart benchmarks/results/training-cpu-amx.json docs/images/training-cpu.svg
	$(PY) -m benchmarks.chart benchmarks/results/head-starts-tatoeba.json docs/images/head-starts.svg
	$(VENV)/bin/fun-transformer attention --model hub_configs/rnn-additive transformer -o docs/images/attention_rnn.svg

notebooks: $(READY)  ## make the notebooks of docs/course.md, run them all, and write pages with their outputs to site/notebooks
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks]'
	$(PY) -m course.notebooks.build --run site/notebooks

museum: $(READY)  ## train the models of the bug museum again, and make its page (five minutes)
	$(PY) -m course.museum.run
	$(PY) -m course.museum.page

docs: $(READY)  ## build the site of docs/ into site/docs, with every link checked
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

test: $(READY)  ## all tests but those that need a GPU, and those of test-library
	$(PY) -m pytest -n auto --dist worksteal -m "not gpu and not library"

test-fast: $(READY)  ## the tests that take under two seconds each
	$(PY) -m pytest -n auto -m "not gpu and not slow"

live: $(READY)  ## the page that shows models at work, for any server of files: python -m http.server -d site/live
	$(PY) docs/live/build.py -o site/live

# Chromium from npm is for Linux on x86; elsewhere `playwright install chromium` brings one, and CHROMIUM names any.
CHROMIUM ?= $(CURDIR)/build/npm/chromium
CHROMIUM_FROM_NPM = import("@sparticuz/chromium").then((it) => it.default.executablePath())
$(CURDIR)/build/npm/chromium:
	npm install --silent --prefix build/npm @sparticuz/chromium@153.0.0
	cd build/npm && TMPDIR=$$PWD node -e '$(CHROMIUM_FROM_NPM)'

test-live: live $(CHROMIUM)  ## the tests of that page in a real browser: $$CHROMIUM, or one from npm
	$(PY) -m pip install --quiet --disable-pip-version-check playwright
	CHROMIUM=$(CHROMIUM) LIVE_SITE=site/live $(PY) -m pytest -s tests/test_live_browser.py

test-library: $(READY)  ## the test-suite of transformers itself on all our models (fifteen minutes; fetched with pip)
	$(PY) -m pytest -m library

# The oldest versions that pyproject.toml allows, and the newest.
oldest = torch==2.11.0 transformers==5.17.0
newest = torch transformers
$(VENV)-%/.ready: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade $($*) -e '.[train,viz,demo,embeddings,argos,onnx,serve,dev]'
	@touch $@

test-versions: $(VENV)-oldest/.ready $(VENV)-newest/.ready  ## the fast tests with the oldest and the newest torch and transformers
	$(VENV)-oldest/bin/python -m pytest -n auto -m "not gpu and not slow"
	$(VENV)-newest/bin/python -m pytest -n auto -m "not gpu and not slow"

coverage: $(READY)  ## which lines the tests of `make test` do not reach (a figure to look at, no gate)
	$(PY) -m pytest -m "not gpu and not library" --cov=fun_transformer --cov-report=term-missing:skip-covered

check: $(READY)  ## ruff (rules, then format) and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

release-check:  ## what a release must be: wheel and sdist built, installed in a fresh environment, README run (needs a network)
	$(PYTHON) .ci/release_check.py
