# Each target makes what it needs, the virtual environment included.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What would have Python and pip find, or put, packages elsewhere than in the environment.
unexport PYTHONPATH PYTHONHOME PYTHONUSERBASE PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_PYTHON
unexport PIP_REQUIREMENT PIP_CONSTRAINT PIP_REQUIRE_HASHES PIP_PRE PIP_NO_BINARY PIP_IGNORE_INSTALLED PIP_DRY_RUN

.PHONY: demo demo-slurm test check lock clean

demo: $(READY)
	$(BIN)/python -m snakemake --cores all
	@sed '/^# Seen/,$$d' results/tables/main.md | cut -d '|' -f 1-5
	@echo 'The whole of it: results/report/index.html'

# Through the Slurm that answers here, or one of this machine that is started for it (of Debian's packages, as it says), in a folder
# of its own; then the tests in which jobs, nodes and daemons of a Slurm are lost.
# What takes seconds is looked at every few, and a node of a few cores does more than one thing at once.
demo-slurm: $(READY)
	mkdir -p .demo-slurm && cp -R Snakefile config profiles workflow .demo-slurm && ln -sfn ../src .demo-slurm/src
	PYTHONPATH="$(CURDIR)" $(BIN)/python -m tests.data.slurm sh -c 'cd .demo-slurm && ../$(BIN)/python -m snakemake --profile profiles/slurm --latency-wait 10 --slurm-init-seconds-before-status-checks 3 --set-threads ingest=2'
	@sed '/^# Seen/,$$d' .demo-slurm/results/tables/main.md | cut -d '|' -f 1-5
	@if [ -e results/tables/main.csv ]; then cmp results/tables/main.csv .demo-slurm/results/tables/main.csv && echo 'The same table as that of make demo'; fi
	$(BIN)/python -m pytest -m slow tests/workflow/test_slurm.py

# A worker for each core, but few: each trains the small models that it tests with.
WORKERS := --numprocesses logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

test: $(READY)
	$(BIN)/python -m pytest $(WORKERS) $(SOME)

check: $(READY)
	$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m snakefmt --check Snakefile workflow/rules
	$(BIN)/python -m snakemake --lint

# The lock has all that is installed, each with the digests of its files: nothing is resolved, nothing comes without one.
$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("vltaxon needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check || { echo 'pyproject.toml asks for what requirements.lock has not: run make lock'; exit 1; }
	touch $@

# Keeps the versions that the lock has, unless pyproject.toml asks for others; UPGRADE=--upgrade takes the newest.
lock:
	$(PYTHON) -m venv .lock && .lock/bin/python -m pip install --quiet uv
	printf 'pip\nsetuptools\n' | .lock/bin/python -m uv pip compile --quiet --universal --python-version 3.11 --extra dev \
		--generate-hashes --no-annotate --custom-compile-command 'make lock' $(UPGRADE) --output-file requirements.lock pyproject.toml -
	rm -r .lock

clean:
	rm -rf results/* results/.state .snakemake
