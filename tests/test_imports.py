"""Import rules: one direction between the rooms, and none between siblings."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = ("pix2pix", "cyclegan", "dcgan", "data_scripts")
ROOMS = {
    # Packages of ganvas and those they may import; modules such as errors and files are for all.
    "nn": {"nn"},
    "data": {"data"},
    "models": {"models", "nn", "data"},
    "training": {"training", "nn", "data", "models"},
    "inference": {"inference", "nn", "data", "models"},
    "evaluation": {"evaluation", "nn", "data", "models"},
}


def imports(file):
    """Yield the names of all modules that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package):
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("module", MODULES)
def test_modules_do_not_import_their_siblings(module):
    for file in files(module):
        tops = {name.partition(".")[0] for name in imports(file)}
        assert not tops & (set(MODULES) - {module}), file


def test_ganvas_imports_no_module():
    for file in files("ganvas"):
        assert not {name.partition(".")[0] for name in imports(file)} & {*MODULES, "benchmarks", "tests"}, file


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_ganvas_keep_their_direction(room):
    for file in files(f"ganvas/{room}"):
        for name in imports(file):
            parts = name.split(".")
            if parts[0] == "ganvas" and len(parts) > 1 and (ROOT / "ganvas" / parts[1]).is_dir():
                assert parts[1] in ROOMS[room], f"{file} imports {name}"


@pytest.mark.parametrize("file", [*files("ganvas/nn"), ROOT / "ganvas/losses.py"], ids=lambda f: f.name)
def test_networks_and_losses_import_only_torch(file):
    for name in imports(file):
        top = name.partition(".")[0]
        assert top == "torch" or top in sys.stdlib_module_names or name.startswith("ganvas.nn"), name


@pytest.mark.parametrize(
    "file",
    [
        "ganvas/options.py",
        "ganvas/training/config.py",
        "ganvas/cli/train.py",
        "pix2pix/config.py",
        "cyclegan/config.py",
        "dcgan/config.py",
    ],
)
def test_options_are_free_of_torch(file):
    heavy = {"torch", "torchvision", "numpy", "albumentations", "lightning_fabric", "PIL"}
    assert not {name.partition(".")[0] for name in imports(ROOT / file)} & heavy


PACKAGES = (*MODULES, "ganvas", "benchmarks")
SOURCES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in files(package)
}


def test_no_private_name_is_imported():
    for file in SOURCES.values():
        for name in imports(file):
            parts = name.split(".")
            if parts[0] in PACKAGES:
                assert not any(part.startswith("_") and not part.endswith("__") for part in parts), f"{file}: {name}"


def test_there_are_no_cycles():
    graph = {name: {used for used in imports(file) if used in SOURCES} - {name} for name, file in SOURCES.items()}
    # ``from package import module`` names both; the package alone is no dependency if a module of it is meant.
    for name, used in graph.items():
        graph[name] = {each for each in used if SOURCES[each].name != "__init__.py" or not _has_modules(each, used)}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def _has_modules(package, used):
    return any(each.startswith(f"{package}.") for each in used)


def test_only_command_lines_import_the_cli():
    for name, file in SOURCES.items():
        if not name.startswith(("ganvas.cli", "benchmarks")) and file.name != "__main__.py":
            assert not {used for used in imports(file) if used.startswith("ganvas.cli")}, file
