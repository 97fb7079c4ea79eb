# make demo: everything end to end on a synthetic sample.   make test: lint and tests.
# make gallery: the pictures of docs/gallery.md from the demo's networks.
# make lint; make bench (BENCH_ROOT=Datasets); make readme.
# make cuda-bundle: wheels for benchmarks/cuda_bare.sh, which runs benchmarks.cuda on a machine without internet.
# PYTHON=python3.11 chooses the interpreter of the virtual environment. TORCH=keep: it sees that interpreter's packages and
# keeps its torch and torchvision, such as those of a container's image.
PYTHON ?= python3
KEEPS_TORCH := $(filter keep,$(TORCH))
BIN := .venv/bin
DEMO := demo
BENCH_ROOT ?= Datasets
RAW := $(DEMO)/Datasets
PROCESSED := $(RAW)/processed
ROOTS := --data-root $(RAW) --processed-root $(PROCESSED)
RUN_FLAGS := $(ROOTS) --runs-root $(DEMO)/runs --resume auto
SINGLE := $(BIN)/python train_single_task.py --config configs/demo/single_task.yaml $(RUN_FLAGS) --train-mode
# torch and the workers share the cores of a laptop: threads that wait must not spin
export OMP_WAIT_POLICY ?= PASSIVE

MULTI := symmetric=$(DEMO)/runs/symmetric/best.pt asymmetric=$(DEMO)/runs/asymmetric/best.pt
SHOW := $(BIN)/python visualize.py --data-root $(RAW) --processed-root $(PROCESSED)
GALLERY := $(DEMO)/gallery
# a validation frame of the synthetic sample with all labels, and its scene
SCENE := 20180813_164231
FRAME := $(SCENE)_000003400
# another one
OTHER := $(SCENE)_000002703
TASKS := segmentation steering depth box

# what a machine with Python 3.12 (glibc 2.28 or newer) and these packages still needs: the pins of requirements*.txt
# without what it has, what it can do without (wandb, fetching A2D2), and what lints; and their dependencies, as far as
# those need no torch
BUNDLE := bundle
BUNDLE_MB := 20
BARE_MACHINE_HAS := torch|torchvision|timm|numpy|pillow|opencv-python-headless|scipy|matplotlib
WITH_DEPENDENCIES := pydantic hypothesis pytest-xdist lightning-utilities
BUNDLE_DOWNLOAD := $(BIN)/python -m pip download --quiet --disable-pip-version-check --dest $(BUNDLE) \
	--only-binary=:all: --python-version 3.12 --implementation cp \
	$(foreach glibc,_2_28 _2_27 _2_17 2014,--platform manylinux$(glibc)_x86_64)

.PHONY: demo gallery test lint bench readme cuda-bundle clean

.venv/installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(if $(KEEPS_TORCH),--system-site-packages) .venv
	grep -Ev '^($(if $(KEEPS_TORCH),torch(vision)?==.*))$$' requirements.txt > .venv/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .venv/requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	grep -v '^-r' requirements-dev.txt > .venv/requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .venv/requirements-dev.txt
	touch $@

# three times as many frames with classes and lidar as with boxes and angles, as the real set's second folder gives.
# The table compares last.pt: every network has then seen the same labels equally often
demo: .venv/installed
	$(BIN)/python -m datasets.synthetic --out $(RAW) --scenes 8 --frames 20 --semantic 40 --image-size 640 402 --seed 0 --threads 2
	for stage in $$(cat datasets/a2d2/stages.txt); do \
		$(BIN)/python preprocessing/$$stage.py $(ROOTS) --size 160 96 --threads 2 || exit 1; \
	done
	$(SINGLE) segmentation
	$(SINGLE) steering
	$(SINGLE) depth
	$(SINGLE) box
	$(BIN)/python train_symmetric.py --config configs/demo/symmetric.yaml $(RUN_FLAGS)
	$(BIN)/python train_asymmetric.py --config configs/demo/asymmetric.yaml $(RUN_FLAGS)
	$(BIN)/python evaluate.py $(foreach run,segmentation steering depth box symmetric asymmetric,$(DEMO)/runs/$(run)/last.pt) \
		--baseline none $(ROOTS) --workers 1 --json $(DEMO)/results.json
	@echo
	@echo "One seed, a smoke test: which network is better is not shown by this; docs/results.md has studies with intervals."
	@echo "The demo's data, runs and results lie in $(DEMO)/: runs/*/best.pt, runs/*/metrics.jsonl, results.json"

$(DEMO)/results.json:
	$(MAKE) demo

gallery: $(DEMO)/results.json
	for task in $(TASKS); do \
		$(SHOW) --task $$task --sample $(FRAME) --out $(GALLERY) \
			--checkpoint single-task=$(DEMO)/runs/$$task/best.pt symmetric=$(DEMO)/runs/symmetric/best.pt || exit 1; \
	done
	$(SHOW) --sample $(FRAME) --checkpoint $(MULTI) --out $(GALLERY)
	$(SHOW) --sample $(FRAME) --out $(GALLERY)/labels
	$(SHOW) --task segmentation --errors --sample $(FRAME) $(OTHER) --checkpoint $(MULTI) --out $(GALLERY)/errors
	$(SHOW) --task depth --errors --sample $(FRAME) --checkpoint $(MULTI) --out $(GALLERY)/errors
	$(SHOW) --plots --checkpoint symmetric=$(DEMO)/runs/symmetric/best.pt --out $(GALLERY)
	$(SHOW) --curves $(DEMO)/runs/symmetric $(DEMO)/runs/asymmetric --out $(GALLERY)
	$(SHOW) --task steering --scene $(SCENE) --checkpoint $(MULTI) --out $(GALLERY)
	$(BIN)/python preprocessing/overview.py --data-root $(RAW) --scene $(SCENE) --frames 2 --out $(GALLERY)
	$(BIN)/python -m visual.gallery docs/gallery \
		$(foreach task,$(TASKS) all,$(task)=$(GALLERY)/$(task)/$(FRAME)/sheet.png) \
		labels=$(GALLERY)/labels/all/$(FRAME)/sheet.png errors=$(GALLERY)/errors/segmentation/$(FRAME)+$(OTHER)/sheet.png \
		depth-errors=$(GALLERY)/errors/depth/$(FRAME)/sheet.png curves=$(GALLERY)/curves/symmetric+asymmetric.png \
		confusion=$(GALLERY)/segmentation/symmetric-val/confusion.png \
		precision-recall=$(GALLERY)/box/symmetric-val/precision-recall.png \
		scene=$(GALLERY)/steering/$(SCENE)/steering.png \
		overview=$(GALLERY)/overview/$(SCENE).png statistics=$(GALLERY)/overview/statistics.png

test: .venv/installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slurm"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm  # one after the other: they share the nodes

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python -m benchmarks.stages --data-root $(BENCH_ROOT)
	$(BIN)/python -m benchmarks.dataset --json benchmarks/results/dataset.json
	$(BIN)/python -m benchmarks.memory --check --json benchmarks/results/memory.json
	$(BIN)/python -m benchmarks.balancing --json benchmarks/results/balancing.json
	$(BIN)/python -m benchmarks.balancing --flops --json benchmarks/results/balancing_flops.json

readme: .venv/installed
	$(BIN)/python -m benchmarks.readme
	$(BIN)/python -m training.reference

cuda-bundle:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	rm -rf $(BUNDLE) && mkdir $(BUNDLE)
	grep -hEv '^(-r|#|($(BARE_MACHINE_HAS)|wandb|ruff|mypy|types-PyYAML|obstore|moto\[server\])==)' requirements.txt requirements-dev.txt > $(BUNDLE)/pins.txt
	$(BUNDLE_DOWNLOAD) --no-deps -r $(BUNDLE)/pins.txt
	$(BUNDLE_DOWNLOAD) -c $(BUNDLE)/pins.txt $(WITH_DEPENDENCIES)
	@bytes=$$(cat $(BUNDLE)/*.whl | wc -c); echo "$(BUNDLE)/: $$(((bytes + 500000) / 1000000)) MB of wheels"; \
	test "$$bytes" -lt $(BUNDLE_MB)000000 || { echo "$(BUNDLE)/ is larger than $(BUNDLE_MB) MB" >&2; exit 1; }

clean:
	rm -rf $(DEMO) $(BUNDLE) .pytest_cache .ruff_cache .mypy_cache .hypothesis
