"""The arrows between packages (../shared/DESIGN.md), read from the imports; and a few calls that no file may make."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("benchmarks", "datasets", "fetching", "models", "preprocessing", "studying", "tasks", "training", "visual")
# modules beside the packages that are no scripts
LIBRARIES = ("arguments", "errors", "progress", "signals", "strict", "strict_yaml")

FILES = (
    "datasets.files",
    "datasets.frames",
    "datasets.images",
    "datasets.locks",
    "datasets.packs",
    "datasets.processed",
    "datasets.spec",
)
LABELS = ("datasets.box_lists", "datasets.depth_maps")
A2D2 = ("datasets.a2d2",)
PICTURES = ("visual.drawing", "visual.pictures", "visual.sheet")
EVERYTHING = (*LIBRARIES, "datasets", "models", "preprocessing", "tasks", "training")

# module or package -> what it may import of the project, itself aside. The longest name that fits a module counts
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "arguments": (),
    "errors": ("signals",),
    "progress": (),
    "signals": (),
    "strict": (),
    "strict_yaml": ("datasets.files", "errors", "strict"),
    "datasets.files": ("errors",),
    "datasets.frames": (),
    "datasets.images": ("datasets.files",),
    "datasets.locks": ("datasets.files", "errors", "progress", "strict"),
    "datasets.packs": ("datasets.files", "errors", "strict"),
    "datasets.settings": ("datasets.images", "strict"),
    "datasets.spec": ("errors",),
    "datasets.processed": (
        "datasets.files",
        "datasets.frames",
        "datasets.images",
        "datasets.packs",
        "datasets.settings",
        "datasets.spec",
        "errors",
        "strict",
    ),
    "datasets.layout": ("datasets.files", "datasets.frames", "errors"),
    "datasets.box_lists": (),
    "datasets.depth_maps": (),
    "datasets.outcomes": ("datasets.files",),
    "datasets.conversion": (*FILES, "datasets.layout", "datasets.outcomes", *LIBRARIES),
    "datasets.a2d2": ("datasets.a2d2", *FILES, "errors", "strict"),
    "datasets.a2d2.stage": (*A2D2, *FILES, "datasets.conversion"),
    "datasets.synthetic": ("datasets.synthetic", *A2D2, *FILES, *LIBRARIES),
    "fetching": (*A2D2, *FILES, "datasets.layout", *LIBRARIES),
    "datasets.folders": ("datasets.folders", *FILES, *LABELS, "datasets.conversion", "datasets.splits", *LIBRARIES),
    "preprocessing": (*A2D2, *FILES, *LABELS, "datasets.conversion", "datasets.layout", *LIBRARIES),
    "preprocessing.folders": (
        "datasets.folders",
        *FILES,
        "datasets.conversion",
        "datasets.layout",
        *LIBRARIES,
        "visual",
    ),
    "preprocessing.overview": (*A2D2, *FILES, "datasets.layout", *LIBRARIES, "visual"),  # to look, not a stage
    "datasets": ("datasets", *LIBRARIES),
    "models": ("errors", "strict"),
    "tasks": (*FILES, "models", "errors", "strict"),
    "training": (*EVERYTHING, *PICTURES),
    "benchmarks": EVERYTHING,
    "benchmarks.readme": (*EVERYTHING, "benchmarks", "studying.tables"),
    "studying": (*EVERYTHING, "benchmarks"),
    "visual": EVERYTHING,
    "visual.drawing": (),
    "visual.sheet": ("visual.drawing",),
    "visual.pictures": ("datasets.spec", "tasks", "visual.drawing", "visual.pictures"),
    "SCRIPT": (*EVERYTHING, "benchmarks", "studying", "visual"),
}
WITHOUT_TORCH = (
    "fetching",
    "preprocessing",
    *FILES,
    *LABELS,
    *A2D2,
    "datasets.folders",
    "datasets.layout",
    "datasets.conversion",
    "datasets.outcomes",
    "datasets.synthetic",
    *LIBRARIES,
)


# ---- the project's modules and what they import ---------------------------------------------------------------


def project_files() -> list[Path]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted([*files, *ROOT.glob("*.py")])


def test_files() -> list[Path]:
    return sorted((ROOT / "tests").rglob("*.py"))


test_files.__test__ = False  # type: ignore[attr-defined]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in project_files()}


def imports_of(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Modules that a source imports anywhere in it: `from a import b` is a.b where that is one of the project's."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: None if is_package and node.level == 1 else -node.level or None]
            base = ".".join([*(parts if node.level else []), *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in MODULES else base


def project_imports(module: str) -> set[str]:
    path = MODULES[module]
    found = set(imports_of(path.read_text(), module, path.name == "__init__.py"))
    return {name for name in found if name.split(".")[0] in {known.split(".")[0] for known in MODULES}}


def fits(module: str, pattern: str) -> bool:
    """`a.b` fits the patterns `a.b`, `a` and `a.b*` (as `a.b_c` does)."""
    if pattern.endswith("*"):
        return module.startswith(pattern[:-1])
    return module == pattern or module.startswith(f"{pattern}.")


def rule_of(module: str) -> str:
    """The key of MAY_IMPORT that a module falls under."""
    rules = [rule for rule in MAY_IMPORT if fits(module, rule)]
    return max(rules, key=len) if rules else "SCRIPT"


def is_script(module: str) -> bool:
    return rule_of(module) == "SCRIPT"


def is_allowed(module: str, imported: str) -> bool:
    rule = rule_of(module)
    own_package = rule.split(".")[0] == rule and fits(imported, rule)
    return own_package or any(fits(imported, pattern) for pattern in MAY_IMPORT[rule])


def test_the_checker_sees_what_it_should() -> None:
    source = (
        "import models.unet\nfrom datasets import layout\nfrom errors import UserError\ndef f():\n  import training\n"
    )
    assert set(imports_of(source, "x")) == {"models.unet", "datasets.layout", "errors", "training"}
    assert set(imports_of("from . import layout\nfrom .files import locked", "datasets.x")) == {
        "datasets.layout",
        "datasets.files",
    }
    assert set(imports_of("from .layout import Frame", "datasets", is_package=True)) == {"datasets.layout"}
    assert "datasets.files" in project_imports("datasets.a2d2.geometry")
    assert len(MODULES) > 10
    assert is_allowed("preprocessing.depth_preprocess", "datasets.a2d2.geometry")
    assert is_allowed("preprocessing.depth_preprocess", "datasets.conversion")
    assert is_allowed("datasets.synthetic.world", "datasets.synthetic.paint")
    assert is_allowed("train_single_task", "training.loop")
    assert is_allowed("training.panels", "visual.pictures.base")
    assert is_allowed("visual.viewer", "training.restore")
    for module, imported in [
        ("datasets.frames", "errors"),
        ("datasets.processed", "datasets.a2d2.geometry"),
        ("datasets.a2d2.geometry", "datasets.synthetic.generate"),
        ("datasets.synthetic.world", "datasets.splits"),
        ("datasets.conversion", "datasets.splits"),
        ("datasets.conversion", "datasets.a2d2.raw"),
        ("datasets.samples", "tasks.base"),
        ("models.unet", "datasets.layout"),
        ("models.unet", "tasks"),
        ("tasks.depth", "training.loop"),
        ("tasks.depth", "datasets.samples"),
        ("training.loop", "train_single_task"),
        ("training.loop", "visual.viewer"),
        ("tasks.depth", "visual.drawing"),
        ("visual.pictures.depth", "training.tables"),
        ("visual.pictures.depth", "visual.labels"),
        ("visual.sheet", "visual.pictures.base"),
        ("benchmarks.stages", "evaluate"),
        ("evaluate", "train_single_task"),
    ]:
        assert not is_allowed(module, imported), f"{module} -> {imported}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    wrong = {imported for imported in project_imports(module) if not is_allowed(module, imported)}
    assert not wrong, f"{module} must not import {', '.join(sorted(wrong))}"


def test_no_module_needs_itself() -> None:
    """The table lets packages import parts of each other (training draws, visual shows trained networks)."""
    TopologicalSorter({module: project_imports(module) - {module} for module in MODULES}).prepare()  # or CycleError


@pytest.mark.parametrize("module", [module for module in MODULES if any(fits(module, p) for p in WITHOUT_TORCH)])
def test_preprocessing_does_not_name_torch(module: str) -> None:
    imported = {name.split(".")[0] for name in imports_of(MODULES[module].read_text(), module)}
    assert not imported & {"torch", "torchvision", "torchmetrics", "torchjd"}


def test_preprocessing_does_not_load_torch() -> None:
    """Not even by way of something else: a worker's memory and a second of start-up are at stake."""
    modules = [module for module in MODULES if any(fits(module, pattern) for pattern in WITHOUT_TORCH)]
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nprint([m for m in sys.modules if m == 'torch'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- words and calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [module for module in MODULES if module != "datasets.a2d2.raw"])
def test_only_one_module_knows_the_folders(module: str) -> None:
    source = MODULES[module].read_text()
    for word in ("cam_front_center", "camera_lidar_semantic_bboxes"):
        assert word not in source, f"{module}: {word}; paths are built in datasets/a2d2/raw.py"


LOADERS = {
    "numpy.load": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}
FORBIDDEN = {f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "unsafe_load_all", "full_load")}


def unsafe_loads(source: str) -> list[int]:
    """Lines that load a file in a way that may run code from it (or may not say that it does not)."""
    tree = ast.parse(source)
    full_names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full_names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            full_names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}

    def full_name(node: ast.expr) -> str:
        if isinstance(node, ast.Attribute):
            return f"{full_name(node.value)}.{node.attr}"
        return full_names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"

    safe = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (option := LOADERS.get(full_name(node.func))):
            given = {word.arg: word.value for word in node.keywords}.get(option[0])
            if isinstance(given, ast.Constant) and given.value is option[1]:
                safe.add(node.func)
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name))
    used = [node for node in names if full_name(node) in {*LOADERS, *FORBIDDEN} and node not in safe]
    return [node.lineno for node in used]


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "import numpy as np\nlist(map(np.load, paths))",
        "from numpy import load\nload(path)",
        "import torch\ntorch.load(path, map_location='cpu')",
        "import torch\ntorch.load(path, weights_only=False)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load as read\nread(text)",
    ],
)
def test_the_checker_finds_unsafe_loads(source: str) -> None:
    assert unsafe_loads(source) == [2]


def test_the_checker_lets_safe_loads_pass() -> None:
    assert not unsafe_loads(
        "import json, numpy as np, torch, yaml\n"
        "np.load(path, allow_pickle=False)\ntorch.load(path, weights_only=True)\nyaml.safe_load(text)\n"
        "json.load(file)\nmodel.load(path)"
    )


@pytest.mark.parametrize("path", [*project_files(), *test_files()], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_loads_in_an_unsafe_way(path: Path) -> None:
    lines = unsafe_loads(path.read_text())
    assert not lines, f"{path.relative_to(ROOT)}: lines {lines}"


# ---- a data set is data -----------------------------------------------------------------------------------------

# what may know A2D2: itself, the generator of synthetic A2D2, its preprocessing scripts, the look at its raw files,
# what fetches it, and the measurements of its shipped configs
KNOW_A2D2 = ("datasets.a2d2", "datasets.synthetic", "preprocessing", "visual.overview", "fetching", "benchmarks")


@pytest.mark.parametrize("module", [module for module in MODULES if not any(fits(module, of) for of in KNOW_A2D2)])
def test_nothing_else_imports_a_constant_of_a2d2(module: str) -> None:
    imported = [
        alias.name
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("datasets.a2d2")
        for alias in node.names
    ]
    assert set(imported) <= {"RawData", "RawImages"}  # where its raw pictures are read


def test_generic_preprocessing_does_not_know_a2d2() -> None:
    modules = [module for module in MODULES if fits(module, "datasets.folders")]
    for module in (*modules, "preprocessing.folders", "preprocessing.pack", "preprocessing.report"):
        assert not any(fits(name, "datasets.a2d2") for name in project_imports(module)), module
