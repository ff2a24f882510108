# replimat: one command from a fresh clone to tables, figures and a report.
#
#   make reproduce                                 the whole suite at laptop scale
#   make reproduce ARGS="--config scale=smoke"     its quick version; ARGS goes as it is to snakemake, pytest, ...
#   make test PYTHON=python3.12                    with another Python
#   make test VARIANT=gpu                          with the CUDA build of torch (envs/gpu.txt)
#
# Packages come from wherever pip's configuration or environment says: mirrors and local folders work as they are.

PYTHON ?= python3
VARIANT ?= cpu
CORES ?= all
ARGS ?=

# Resolved before .venv/bin is put first, so that a .venv is never made by the .venv it replaces.
python := $(shell command -v $(PYTHON) 2>/dev/null)
bin := $(CURDIR)/.venv/bin
ready := .venv/.ready-$(VARIANT)
install = $(bin)/python -m pip install --quiet --no-compile --disable-pip-version-check --log .venv/install.log
builder = $(or $(shell docker info >/dev/null 2>&1 && echo docker || \
	{ podman info >/dev/null 2>&1 && echo podman; } || \
	{ command -v buildah >/dev/null && echo buildah; }), \
	$(error No container builder answers: install docker (and start its daemon), podman or buildah))

comma := ,

export PATH := $(bin):$(PATH)
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
# pip leaves byte-compiling to the first import, which must then be allowed to keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help reproduce test data report bench image sif lock clean

help: ## this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

reproduce: $(ready) ## everything: data, training, tables, figures, report (about 35 minutes on two cores)
	snakemake --cores $(CORES) $(ARGS)
	@echo; echo "Tables, figures and the report:"
	@find results -path results/published -prune -o -maxdepth 2 -type f -print | sort | sed 's/^/  /'

test: $(ready) ## the tests; REPLIMAT_MIRROR=folder adds those on the papers' own data
	pytest $(ARGS)

data: $(ready) ## fetch the data of the default suite into data/, each file checked against its sha256
	replimat fetch $(ARGS)

report: $(ready) ## draw figures and report again from what has been run
	replimat report $(ARGS)

bench: $(ready) ## ours against the peers of benchmarks/requirements.txt that are installed
	python benchmarks/run.py $(ARGS)

# The environment is exactly the lock: a changed lock or pyproject.toml makes it anew.
# The lock is complete and every file in it has its hash, so pip need not resolve (--no-deps).
$(ready): envs/$(VARIANT).txt envs/torch.txt pyproject.toml
	@"$(python)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "replimat needs Python 3.11 or newer, which $(PYTHON) is not. Name another: make PYTHON=python3.11" >&2; exit 1; }
	@"$(python)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(python) has no venv module. Install it (Debian, Ubuntu: apt install python3-venv) and try again." >&2; exit 1; }
	@echo "[1/4] .venv with $$($(python) --version)"
	@"$(python)" -m venv --clear .venv
	@echo "[2/4] $$(grep -c '==' envs/$(VARIANT).txt) packages of envs/$(VARIANT).txt, about a minute (details: .venv/install.log)"
	@$(install) --progress-bar off --no-deps --require-hashes --requirement envs/$(VARIANT).txt
	@echo "[3/4] $$(grep '==' envs/torch.txt): 0.2 GB for processors only, 3 GB with CUDA"
	@$(install) --requirement envs/torch.txt
	@echo "[4/4] replimat"
	@$(install) --no-deps --no-build-isolation --editable .
	@touch $@

# IMAGE_ARGS goes to the builder. PIP_CONFIG_FILE, where set, is shown to pip during the build and not kept.
image: ## container image replimat:cpu, with docker, podman or buildah (VARIANT=gpu, VARIANT=train: the others)
	$(builder) build --target $(VARIANT) --tag replimat:$(VARIANT) \
	    --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
	    $(if $(PIP_CONFIG_FILE),--secret id=pip$(comma)src=$(PIP_CONFIG_FILE)) $(IMAGE_ARGS) .

sif: image ## the same image as one file, which `snakemake --sdm apptainer` uses on clusters
	$(if $(filter buildah,$(builder)),buildah push replimat:$(VARIANT) docker-archive:replimat-$(VARIANT).tar, \
	    $(builder) save --output replimat-$(VARIANT).tar replimat:$(VARIANT))
	apptainer build --force replimat-$(VARIANT).sif docker-archive:replimat-$(VARIANT).tar
	rm replimat-$(VARIANT).tar

# For maintainers; needs uv. Pins that still fit stay as they are; ARGS=--upgrade moves them all.
compile = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate --quiet $(ARGS)
lock: ## write envs/ anew from pyproject.toml
	$(compile) --extra dev --output-file envs/gpu.txt
	$(compile) --constraint envs/gpu.txt --output-file envs/train.txt
	$(compile) --constraint envs/gpu.txt --extra remotes --output-file envs/remotes.txt
	awk 'NR == FNR {have[$$1]; next} /^[^ ]/ {keep = !($$1 in have)} keep' envs/gpu.txt envs/remotes.txt > envs/remotes.new
	mv envs/remotes.new envs/remotes.txt
	awk '/^[^ ]/ {keep = /^nvidia-ml-/ || !/^(torch==|triton==|cuda-|nvidia-)/} keep' envs/gpu.txt > envs/cpu.txt
	sed -i.old "s/^torch==.*/$$(grep -o '^torch==[0-9.]*' envs/gpu.txt)/" envs/torch.txt
	rm envs/torch.txt.old

clean: ## remove all that make can make again, except data/
	rm -rf .venv .snakemake prepared runs build src/replimat.egg-info
	rm -rf .pytest_cache .hypothesis .ruff_cache .import_linter_cache .grimp_cache
	find results -mindepth 1 -maxdepth 1 ! -name published -exec rm -rf {} +
	find src tests workflow benchmarks -name __pycache__ -prune -exec rm -rf {} +
