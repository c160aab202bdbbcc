# make demo   the whole loop on the embedded data, into ./crywolf-demo
# make test   lint, types and every test
# make check  lint and types alone
# make bench-loop CORPUS=DIR   the honest loop on real corpora; writes docs/bench/loop.md
# make bench-read  seconds to read 236,000 rows
# make bench-augment  generators compared by what training on their samples does (QUICK=1: one seed, a probe)
# make bench-dedup    deduplication beside datasketch, rensa, semhash, text-dedup
# make bench-mining   embedding and mining beside sentence-transformers (QUICK=1: a small one)
# make bench-fit      training beside transformers' Trainer, same rows and steps (8 minutes; QUICK=1: a smoke test)
# make bench-full     growth, deduplication, mining and audit at 236,000 rows, each stage's time and memory
# make bench-recipes  recipes on whole sources left out, beside a published guard (hours; resumes)
# make handoff        the handoff to a package in one command, compared with that guard (an hour and a half)
# make clean  what the above made, the environment too
PYTHON ?= python3
CORPUS ?= ../shared/corpus
HANDOFF ?= ../shared/handoff
BIN := .venv/bin
READY := .venv/.ready
TYPES := build/types
RIVALS := .venv/.rivals
QUICK ?=
QUICKLY := $(if $(QUICK),--quick,)

.PHONY: demo test check clean bench-loop bench-read bench-augment bench-dedup bench-mining bench-fit bench-full bench-recipes handoff

demo: $(READY)
	$(BIN)/crywolf demo --force -o crywolf-demo

test: check
	$(BIN)/pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(TYPES) build/lib && $(BIN)/pip install -q --no-deps --target $(TYPES) .
	MYPYPATH=$(TYPES) $(BIN)/mypy -p crywolf

bench-loop: $(READY)
	$(BIN)/python benchmarks/loop.py --corpus $(CORPUS)

bench-read: $(READY)
	$(BIN)/python benchmarks/reading.py

bench-augment: $(RIVALS)
	npm ci --silent --prefix benchmarks/augment || echo "no npm: synonyms from WordNet are left out"
	$(BIN)/python benchmarks/augment --corpus $(CORPUS) $(QUICKLY)

bench-dedup: $(RIVALS)
	$(BIN)/python benchmarks/dedup.py --corpus $(CORPUS)

bench-mining: $(RIVALS)
	$(BIN)/python benchmarks/mining --corpus $(CORPUS) $(QUICKLY)

bench-fit: $(READY)
	$(BIN)/python benchmarks/fit.py --corpus $(CORPUS) $(QUICKLY)

bench-full: $(READY)
	$(BIN)/python benchmarks/full_size.py --corpus $(CORPUS) --handoff $(HANDOFF)

bench-recipes: $(RIVALS)
	$(BIN)/python benchmarks/recipes --corpus $(CORPUS) --handoff $(HANDOFF)

handoff: $(RIVALS)
	PYTHONPATH=benchmarks/recipes $(BIN)/crywolf retrain --config benchmarks/recipes/handoff.yaml || test $$? -eq 1
	$(BIN)/python benchmarks/recipes/handoff.py --run runs/handoff --corpus $(CORPUS)

$(RIVALS): $(READY) benchmarks/requirements.txt
	$(BIN)/pip install -q -c constraints.txt -r benchmarks/requirements.txt
	touch $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build crywolf-demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
