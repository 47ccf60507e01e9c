"""Who may import whom: the import rules, read from the source and checked in real processes.

The source is parsed, so an import inside a function or a condition counts too. What a module loads
through others is checked by importing it in a fresh interpreter.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FREE_OF_TORCH_AND_RAY = ("ermgap.corpora", "ermgap.metrics", "ermgap.records", "analysis")
FREE_OF_RAY = ("ermgap.backbone", "ermgap.objective", "ermgap.evaluation", "ermgap.loop")
# Built on torch: importing one of these loads it, although the source does not say torch.
TORCH_FAMILY = {"torch", "torchaudio", "transformers", "peft", "accelerate"}
READ_BY_ANALYSIS = {"ermgap.records", "ermgap.metrics"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_by(path: Path) -> Iterator[str]:
    """Every dotted name that `path` imports, `from a import b` as `a.b`; relative ones resolved."""
    package = module_name(path.parent / "__init__.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            yield from _named_in_a_call(node)


def _named_in_a_call(node: ast.Call) -> Iterator[str]:
    function = (
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    )
    name = node.args[0]
    if function in ("import_module", "__import__") and isinstance(name, ast.Constant):
        yield str(name.value)


def inside(name: str, rooms: tuple[str, ...] | set[str]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def breaches(rooms: tuple[str, ...], forbidden: set[str]) -> list[str]:
    return [
        f"{module_name(path)} imports {name}"
        for package in ("ermgap", "analysis")
        for path in sources(package)
        if inside(module_name(path), rooms)
        for name in imported_by(path)
        if inside(name, forbidden)
    ]


def test_corpora_metrics_records_and_analysis_import_neither_torch_nor_ray():
    assert breaches(FREE_OF_TORCH_AND_RAY, TORCH_FAMILY | {"ray"}) == []


def test_backbone_objective_evaluation_and_loop_import_no_ray():
    assert breaches(FREE_OF_RAY, {"ray"}) == []


def test_training_is_the_one_file_of_ermgap_that_imports_ray():
    importers = {
        module_name(path)
        for path in sources("ermgap")
        if any(inside(name, {"ray"}) for name in imported_by(path))
    }
    assert importers <= {"ermgap.training"}


def test_ermgap_imports_nothing_of_sweeps_or_analysis():
    assert breaches(("ermgap",), {"sweeps", "analysis"}) == []


def test_analysis_reads_records_and_metrics_only():
    read = {
        (module_name(path), name)
        for path in sources("analysis")
        for name in imported_by(path)
        if inside(name, {"ermgap", "sweeps"}) and not inside(name, READ_BY_ANALYSIS)
    }
    # Its mistakes are told as everywhere: `UserError`, from a module that imports nothing.
    assert {(module, name) for module, name in read if not inside(name, {"ermgap.errors"})} == set()


def test_the_rooms_that_the_rules_name_exist():
    rooms = [*FREE_OF_TORCH_AND_RAY, *FREE_OF_RAY, "ermgap.training", "sweeps"]
    missing = [room for room in rooms if not _path_of(room)]
    assert missing == []


def test_imports_inside_functions_and_relative_ones_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    room = tmp_path / "ermgap" / "corpora"
    room.mkdir(parents=True)
    (room / "hidden.py").write_text(
        "def load():\n    import torch.nn\n    from .. import loop\n    from ..loop import run\n"
        "    import importlib\n    importlib.import_module('ray.tune')\n"
    )
    assert {"torch.nn", "ermgap.loop", "ermgap.loop.run", "ray.tune"} <= set(
        imported_by(room / "hidden.py")
    )
    assert "ermgap.corpora.hidden imports torch.nn" in breaches(("ermgap.corpora",), {"torch"})


def _path_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def loaded_by(*modules: str) -> set[str]:
    """The top-level packages loaded after importing `modules` in a fresh interpreter."""
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def present(*modules: str) -> tuple[str, ...]:
    """Those of `modules` that are written; an absent one is caught by the test of the rooms."""
    here = tuple(module for module in modules if _path_of(module))
    if not here:
        pytest.skip(f"none of {', '.join(modules)} exists yet")
    return here


def test_reading_and_drawing_a_sweep_loads_neither_torch_nor_ray():
    modules = present("ermgap.metrics", "ermgap.records", "ermgap.corpora", "analysis.front")
    assert loaded_by(*modules).isdisjoint({"torch", "ray", "transformers"})


def test_training_one_configuration_under_torch_alone_loads_no_ray():
    modules = present("ermgap.loop", "ermgap.evaluation", "ermgap.objective", "ermgap.backbone")
    assert "ray" not in loaded_by(*modules)
