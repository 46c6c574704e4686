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

# A file's tests stay together: what they share is made once.
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

# What asks at other sizes what the others ask: some minutes more.
test-thorough: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m thorough

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info demo
