PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-cluster test-chaos example screenshots browser perf docs lint schema clean

quickstart: $(VENV)/.installed  ## fine-tune, evaluate and rank on the miniature world
	$(BIN)/shiftbench run suites/quickstart.yaml

test: $(VENV)/.tested  ## the test suite, on two cores
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m 'not cluster'

test-cluster: $(VENV)/.tested  ## what groups, nodes, jobs and searches do when parts of a cluster die
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m 'cluster and not chaos'

test-chaos: $(VENV)/.tested  ## everything is killed once while a suite runs; nothing that comes out may differ
	$(BIN)/python -m pytest -m chaos tests/distributed/test_chaos.py

example: $(VENV)/.tested  ## the miniature suite's leaderboard and report, in results/example
	$(BIN)/shiftbench run suites/miniature.yaml --results results/example
	$(BIN)/shiftbench report suites/miniature.yaml --results results/example --html results/example/report.html
	$(BIN)/shiftbench export --results results/example --task cifar10 --method wise-ft --to results/example/wise-ft.zip
	$(BIN)/python -m tests.screenshot results/example/report.html results/example/report.png

screenshots: $(VENV)/.tested  ## pictures of reports on few and many methods, in build/screenshots
	$(BIN)/python -m tests.screenshots --to build/screenshots

browser:  ## Debian's chromium, in which the tests open the HTML report
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends chromium

perf: $(VENV)/.tested  ## what training, evaluation and reports cost on this machine's processors
	$(BIN)/python -m tests.perf

docs: $(VENV)/.tested  ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: docs $(VENV)/.tested  ## style, types, layers and documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

schema: $(VENV)/.installed  ## the JSON schema that editors use for suites
	$(BIN)/python -m shiftbench.suite.json_schema

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
