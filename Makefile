# One verb for each thing a person does. All work in .venv, which is made when it is first needed.

PYTHON ?= python3
RUN := .venv/bin/python
# A stamp, made once all requirements are installed.
VENV := .venv/installed

.PHONY: help demo test test-slow lint format train-an4 an4-data lmplz language-models bench-decode bench-train \
    bench-data bench-recognise gpu-check faults report kaggle-check clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

demo: $(VENV) ## speak a small corpus, overfit one batch, train, evaluate: minutes on a CPU
	$(RUN) -m asrlib.demo

test: $(VENV) ## run the quick tests
	$(RUN) -m pytest -n auto -m "not slow"

test-slow: $(VENV) ## run the tests that train
	$(RUN) -m pytest -m slow || [ $$? -eq 5 ] # 5: there are none

lint: $(VENV) ## check format, style and the size of the library
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	@echo "asrlib: $$(find asrlib -name '*.py' -exec cat {} + | grep -c '[^[:space:]]') non-blank lines"

format: $(VENV) ## format, and fix what can be fixed
	$(RUN) -m ruff check --fix --exit-zero .
	$(RUN) -m ruff format .

# MODEL: the rest of the name of a file asrlib/configs/experiment/an4_MODEL.yaml.
MODEL ?= deepspeech2
SEED ?= 0
AN4 = an4-$(subst _,-,$(MODEL))
AN4_RUN = outputs/$(AN4)-seed$(SEED)
train-an4: an4-data $(VENV) ## train on CMU AN4: make train-an4 DATA=DIR MODEL=conformer SEED=0
	$(RUN) train.py experiment=an4_$(MODEL) "datasets.root=$(DATA)" seed=$(SEED) run_dir=$(AN4_RUN)
	$(RUN) inference.py datasets=an4 "datasets.root=$(DATA)" \
	    inferencer.from_pretrained=$(AN4_RUN) inferencer.result_path=report/results/$(AN4).json

an4-data:
	@[ -n "$(DATA)" ] || { echo "Where is AN4? make $(or $(MAKECMDGOALS),train-an4) DATA=DIR" >&2; exit 1; }
	@for part in train dev test; do [ -d "$(DATA)/$$part/audio" ] || { \
	    echo "No folder $(DATA)/$$part/audio: DATA must hold train, dev and test" >&2; exit 1; }; done

lmplz: build/kenlm/bin/lmplz ## build KenLM's lmplz and build_binary: a C++ compiler and Boost needed

# From the source package of the kenlm that is installed; its CMakeLists.txt asks for all four libraries.
BOOST := program_options system/error_code thread test/unit_test
build/kenlm/bin/lmplz: | $(VENV)
	@for header in $(BOOST); do echo "#include <boost/$$header.hpp>"; done \
	    | c++ -E -x c++ - >/dev/null 2>&1 || { \
	    echo "No C++ compiler, or not all of Boost's headers (Debian, Ubuntu: apt install g++ make" \
	        "libboost-{program-options,system,thread,test}-dev)." >&2; exit 1; }
	rm -rf build/kenlm-source && mkdir -p build/kenlm-source
	$(PIP) download --no-deps --no-build-isolation --no-binary kenlm --dest build/kenlm-source \
	    "$$(grep -o '^kenlm==[0-9.]*' requirements-nodeps.txt)"
	tar -xzf build/kenlm-source/kenlm-*.tar.gz --strip-components 1 -C build/kenlm-source
	.venv/bin/cmake -S build/kenlm-source -B build/kenlm -Wno-dev -DCMAKE_CXX_FLAGS=-w
	+.venv/bin/cmake --build build/kenlm --target lmplz build_binary

language-models: an4-data build/kenlm/bin/lmplz $(VENV) ## estimate those of AN4 and the demo: make language-models DATA=DIR
	$(RUN) -m asrlib.language_model estimate --order 4 --out language_models/an4-4gram.arpa.gz \
	    --dataset an4 --root "$(DATA)"
	$(RUN) -m asrlib.language_model perplexity language_models/an4-4gram.arpa.gz \
	    --dataset an4 --root "$(DATA)"
	$(RUN) -m asrlib.language_model estimate --order 4 --out language_models/demo-4gram.arpa.gz \
	    --dataset demo
	$(RUN) -m asrlib.language_model perplexity language_models/demo-4gram.arpa.gz --dataset demo

# flashlight-text has no wheels everywhere.
SHIPPED := checkpoints/shipped
bench-decode: $(VENV) ## time searches with a language model side by side: make bench-decode DATA=LIBRISPEECH
	@[ -d "$(DATA)/dev-clean" ] || { echo "Where is LibriSpeech? make bench-decode DATA=DIR" >&2; exit 1; }
	@$(PIP) install --no-deps flashlight-text==0.0.7 || echo "flashlight-text does not install here: left out" >&2
	$(RUN) -m bench.decode inferencer.from_pretrained=$(SHIPPED) datasets=librispeech "datasets.root=$(DATA)" \
	    inferencer.part=val ++datasets.val.limit=40 decoder=beam_lm decoder.lm_path=$(SHIPPED)/lm3.arpa.gz \
	    decoder.alpha=1 decoder.beta=0.75 +out=report/results/bench-decode.json

bench-train: $(VENV) ## time Conformer blocks beside torchaudio's, and CTC beside PyTorch's, on this CPU
	$(RUN) -m bench.train --out report/results/bench-train.json
	$(RUN) -m bench.ctc report/results/bench-ctc.json

bench-recognise: $(VENV) ## time the shipped recogniser beside PocketSphinx: make bench-recognise DATA=LIBRISPEECH
	@[ -d "$(DATA)/dev-clean" ] || { echo "Where is LibriSpeech? make bench-recognise DATA=DIR" >&2; exit 1; }
	$(PIP) install pocketsphinx==5.1.1
	$(RUN) -m bench.recognise inferencer.from_pretrained=$(SHIPPED) datasets=librispeech \
	    "datasets.root=$(DATA)" inferencer.part=val inferencer.result_path=report/results/shipped.json \
	    +out=report/results/bench-recognise.json

# DATA: any folder of recordings; without it, the demo's.
bench-data: $(VENV) ## time reading, augmenting and batching of FLAC, Opus, MP3 and shards, beside lhotse [DATA=DIR]
	$(PIP) install lhotse==1.33.0
	$(RUN) -m bench.data $(if $(DATA),--data "$(DATA)") --out report/results/bench-data.json

gpu-check: $(VENV) ## compare training on this GPU with the CPU's, and time it: ten minutes, none without CUDA
	$(RUN) -m bench.gpu_check --out report/results/bench-gpu.json

faults: $(VENV) ## inject faults into trainings, and write what was kept to report/results/faults.json
	$(RUN) -m report.faults

report: $(VENV) ## make report/report.ipynb, .md and .html anew of the committed results
	$(RUN) -m report.build

kaggle-check: $(VENV) ## rehearse two sessions on Kaggle: an image with its own torch, read-only inputs, two processes
	$(RUN) notebooks/simulate_kaggle.py

clean: ## delete .venv and caches; data and outputs stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# The environment. PYTHON is taken if given; else python3 or the first of the others that will do.
PYTHONS := $(PYTHON) $(if $(filter file,$(origin PYTHON)),python3.11 python3.12 python3.10)
SUITABLE := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PIP := $(RUN) -m pip --quiet --disable-pip-version-check
HEADER := import sysconfig; print(sysconfig.get_path("include") + "/Python.h")

# Without the stamp (an interrupted installation) or without its Python, .venv is made anew;
# otherwise only what changed in the requirements is installed.
ifneq ($(shell $(RUN) -c 'print("runs")' 2>/dev/null),runs)
.PHONY: $(VENV)
endif
$(VENV): requirements.txt requirements-nodeps.txt requirements-dev.txt constraints.txt
	@[ -f $@ ] && $(RUN) -c '' 2>/dev/null && exit; \
	for python in $(PYTHONS) none; do $$python -c '$(SUITABLE)' 2>/dev/null && break; done; \
	if [ $$python = none ]; then \
	    echo "asrlib needs Python 3.10, 3.11 or 3.12; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "If you have one elsewhere, name it: make PYTHON=python3.11 demo" >&2; exit 1; \
	fi; \
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$python cannot make environments: install its venv package" \
	        "(Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; \
	fi; \
	echo "Making .venv with $$($$python --version): 5 GB, a few minutes"; \
	$$python -m venv --clear .venv
	@rm -f $@
	$(PIP) install -r requirements.txt -c constraints.txt
	$(PIP) install -r requirements-dev.txt -c constraints.txt
	@if command -v c++ >/dev/null && [ -f "$$($(RUN) -c '$(HEADER)')" ]; then \
	    set -x; $(PIP) install --no-deps --no-build-isolation -r requirements-nodeps.txt; \
	else \
	    echo "No C++ compiler or no Python.h (Debian, Ubuntu: apt install g++ python3-dev): left out" \
	        "requirements-nodeps.txt, which BPE (as in the demo) and LM decoding need." >&2; \
	fi
	@touch $@
