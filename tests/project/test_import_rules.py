"""Who may import whom: the import rules, read from the source and checked in real processes.

The source is parsed, so an import inside a function or a condition counts too; what is only
imported for type checkers does not. What a module loads through others is checked by importing it
in a fresh interpreter.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ermgap", "sweeps", "analysis")
# Each line may import itself, its neighbours in the line and the lines above it.
ORDER = (
    ("errors", "registry", "config"),
    ("attributes", "corpora", "counts", "metrics", "rates", "records"),
    ("distributed",),
    ("model", "objective"),
    ("training",),
    ("adapters", "baselines"),
    ("predict",),
)
FREE_OF_TORCH_AND_RAY = ("ermgap.corpora", "ermgap.metrics", "ermgap.records", "analysis")
# Built on torch: importing one of these loads it, although the source does not say torch.
TORCH_FAMILY = {"torch", "torchaudio", "transformers", "peft", "accelerate"}
MAY_IMPORT_RAY = (
    "ermgap.training.ray_worker",
    "sweeps.scheduler",
    "sweeps.search",
    "sweeps.extract",
)
READ_BY_ANALYSIS = {
    "ermgap.attributes",
    "ermgap.records",
    "ermgap.metrics",
    "ermgap.errors",
    "ermgap.config",
}
COMMANDS = {f"sweeps.{name}" for name in ("pareto", "train", "benchmark", "extract", "dial")}
COMMANDS |= {"ermgap.predict"}
PLOTTING = {"matplotlib", "plotly", "analysis.figures"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def imported_by(path: Path) -> Iterator[str]:
    """Every dotted name that `path` imports, `from a import b` as `a.b`; relative ones resolved."""
    package = module_name(path.parent / "__init__.py")
    for node in _running(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            yield from _named_in_a_call(node)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from _running(node)


def _named_in_a_call(node: ast.Call) -> Iterator[str]:
    function = (
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    )
    name = node.args[0]
    if function in ("import_module", "__import__") and isinstance(name, ast.Constant):
        yield str(name.value)


def inside(name: str, rooms: Iterable[str]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def breaches(rooms: Iterable[str], forbidden: Iterable[str]) -> list[str]:
    rooms, forbidden = tuple(rooms), tuple(forbidden)
    return [
        f"{module_name(path)} imports {name}"
        for path in sources(*PACKAGES)
        if inside(module_name(path), rooms)
        for name in imported_by(path)
        if inside(name, forbidden)
    ]


def test_corpora_metrics_records_and_analysis_import_neither_torch_nor_ray():
    assert breaches(FREE_OF_TORCH_AND_RAY, TORCH_FAMILY | {"ray"}) == []


def test_ray_is_imported_where_trials_are_searched_and_scheduled_and_nowhere_else():
    importers = {
        module_name(path)
        for path in sources(*PACKAGES)
        if any(inside(name, {"ray"}) for name in imported_by(path))
    }
    assert {name for name in importers if not inside(name, MAY_IMPORT_RAY)} == set()


def test_each_room_of_ermgap_imports_those_above_it_alone():
    for number, line in enumerate(ORDER):
        below = {f"ermgap.{room}" for lower in ORDER[number + 1 :] for room in lower}
        assert breaches((f"ermgap.{room}" for room in line), below) == []


def test_every_room_of_ermgap_has_its_place_in_the_order():
    rooms = {_room(module_name(path)).removeprefix("ermgap.") for path in sources("ermgap")}
    assert rooms - {"ermgap"} == {room for line in ORDER for room in line}


def test_ermgap_imports_nothing_of_sweeps_or_analysis_and_analysis_nothing_of_sweeps():
    assert breaches({"ermgap"}, {"sweeps", "analysis"}) == []
    assert breaches({"analysis"}, {"sweeps"}) == []


def test_analysis_reads_records_metrics_errors_and_configuration_only():
    read = {
        f"{module_name(path)} imports {name}"
        for path in sources("analysis")
        for name in imported_by(path)
        if inside(name, {"ermgap"}) and not inside(name, READ_BY_ANALYSIS)
    }
    assert read == set()


def test_the_search_knows_no_model_and_no_scheduler():
    models = {"ermgap.model", "ermgap.training", "ermgap.adapters", "ermgap.baselines"}
    assert breaches({"sweeps.search"}, {"sweeps.scheduler", "sweeps.scoring", *models}) == []


def test_nobody_imports_a_command():
    assert breaches(PACKAGES, COMMANDS) == []


def test_the_scheduler_imports_no_plotting():
    assert breaches({"sweeps.scheduler"}, PLOTTING) == []


def test_only_commands_stand_at_the_top_of_sweeps():
    here = {path.stem for path in (ROOT / "sweeps").glob("*.py")}
    assert here - {"__init__"} == {name.split(".")[1] for name in COMMANDS if "sweeps" in name}


def _files() -> dict[str, set[str]]:
    """The modules of this project that each of its modules imports."""
    names = {module_name(path): path for path in sources(*PACKAGES)}
    return {
        name: {found for one in imported_by(path) if (found := _known(one, names))} - {name}
        for name, path in names.items()
    }


def _known(name: str, names: Mapping[str, Path]) -> str | None:
    """The module that a dotted name lies in."""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name or None


def _room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """A way round, for each node that lies on one."""
    found = []
    for start in sorted(graph):
        ways = [[start, after] for after in sorted(graph[start])]
        seen = set()
        while ways:
            way = ways.pop()
            if way[-1] == start:
                found.append(way)
                break
            if way[-1] not in seen:
                seen.add(way[-1])
                ways += [[*way, after] for after in sorted(graph.get(way[-1], ()))]
    return found


def test_no_file_imports_itself_through_others():
    packages = {module_name(path) for path in sources(*PACKAGES) if path.stem == "__init__"}
    # `from ermgap.model import batches` names the package too, whose own imports are its contents.
    graph = {name: found - packages for name, found in _files().items()}
    assert _circles(graph) == []


def test_no_room_imports_itself_through_others():
    graph: dict[str, set[str]] = {}
    for name, found in _files().items():
        graph.setdefault(_room(name), set()).update(map(_room, found))
    tops = set(PACKAGES)
    graph = {room: found - {room} - tops for room, found in graph.items() if room not in tops}
    assert _circles(graph) == []


def test_no_folder_holds_more_than_a_dozen_files_and_no_file_more_than_300_lines():
    exempt = {ROOT / "ermgap" / "corpora"}
    folders = {path.parent for path in sources(*PACKAGES)} - exempt
    crowded = {str(folder): len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: n for name, n in crowded.items() if n > 12} == {}
    lines = {str(path): path.read_text("utf-8").count("\n") for path in sources(*PACKAGES)}
    assert {name: n for name, n in lines.items() if n > 300} == {}


def test_a_command_does_not_put_its_own_folder_on_the_path():
    """Else `import search` in somebody else's module would find ours."""
    for name in COMMANDS:
        if name.startswith("sweeps."):
            code = (
                "import runpy, sys\n"
                "sys.argv = [sys.argv[1], '--help']\n"
                "sys.path[0] = sys.argv[0].rpartition('/')[0]\n"
                "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
                "except SystemExit: pass\n"
                "import importlib.util\n"
                "assert not [n for n in ('search', 'setup', 'recording', 'scheduler', 'scoring')"
                " if importlib.util.find_spec(n)], sys.path\n"
            )
            path = str(ROOT / f"{name.replace('.', '/')}.py")
            done = subprocess.run(
                [sys.executable, "-c", code, path], cwd=ROOT.parent, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr


def test_imports_inside_functions_and_relative_ones_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    room = tmp_path / "ermgap" / "corpora"
    room.mkdir(parents=True)
    (room / "hidden.py").write_text(
        "def load():\n    import torch.nn\n    from .. import loop\n    from ..loop import run\n"
        "    import importlib\n    importlib.import_module('ray.tune')\n"
        "if TYPE_CHECKING:\n    import transformers\n"
    )
    found = set(imported_by(room / "hidden.py"))
    assert {"torch.nn", "ermgap.loop", "ermgap.loop.run", "ray.tune"} <= found
    assert "transformers" not in found
    assert "ermgap.corpora.hidden imports torch.nn" in breaches({"ermgap.corpora"}, {"torch"})


def test_a_circle_is_found():
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"], ["c", "b", "c"]]
    assert _circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


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


def test_reading_and_drawing_a_sweep_loads_neither_torch_nor_ray():
    modules = ("ermgap.metrics", "ermgap.records", "ermgap.corpora", "analysis.report")
    assert loaded_by(*modules).isdisjoint({"torch", "ray", "transformers"})


@pytest.mark.parametrize("room", ["model", "objective", "training", "training.trainer", "adapters"])
def test_training_one_configuration_under_torch_alone_loads_no_ray(room):
    assert "ray" not in loaded_by(f"ermgap.{room}")
