# `make demo` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
INPUT  ?=
PRESET ?=

.PHONY: demo test test-thorough lint format clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[cpu,openvino,batch,demo,dev,evaluate,export,serve]"
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m stream.demo $(if $(INPUT),--input "$(INPUT)") $(if $(PRESET),--preset "$(PRESET)") --output demo

# A file's tests stay together: what they share is made once. In the order in which they are collected: else files of few
# tests come last, which are those that take minutes, and all but one core wait for them.
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# What asks at other sizes what the others ask, and takes minutes each: published networks at full size, mostly.
test-thorough: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m thorough

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info demo
