"""The project's own files: what a wheel carries, what the README promises, what git ignores.

The slow test builds a real wheel; the others read the configuration that it is built from.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ermgap", "sweeps", "analysis")
INSTALLED_AS = {"yaml": "pyyaml"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tracked() -> list[Path]:
    """Files that git tracks or would add; every file outside ignored folders without git."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this copy is not a git repository")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def pages() -> dict[Path, str]:
    """The text of every page that a reader is led to."""
    found = [path for path in tracked() if path.suffix == ".md" and "results" not in path.parts]
    return {path: path.read_text(encoding="utf-8") for path in found}


def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


MAKE = r"(?:^|`)make ([a-z][a-z-]*)"
SCRIPT = r"python ((?:sweeps|tests|ermgap)/[\w/]+\.py)"


def test_every_make_command_in_the_pages_is_a_target():
    targets = set(re.findall(r"^([a-z-]+)%?:", makefile(), re.MULTILINE))
    named = {name for text in pages().values() for name in re.findall(MAKE, text, re.MULTILINE)}
    assert {"demo", "test"} <= named
    assert {name for name in named if not _is_target(name, targets)} == set()


def _is_target(name: str, targets: set[str]) -> bool:
    return name in targets or (name.startswith("figures-") and "figures-" in targets)


def test_every_script_that_the_pages_run_exists():
    texts = pages().values()
    scripts = [script for text in texts for script in re.findall(SCRIPT, text)]
    assert scripts and [script for script in scripts if not (ROOT / script).is_file()] == []


def test_every_link_in_the_pages_leads_to_a_file_and_a_heading():
    broken = []
    for page, text in pages().items():
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            path, _, heading = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (heading and heading not in _headings(file)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def _headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 9000


def test_constraints_pin_every_direct_dependency_exactly():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", pin) for pin in pins)
    named = {_canonical(pin.split("==")[0]) for pin in pins}
    assert declared(*project()["project"]["optional-dependencies"]) <= named


def declared(*extras: str) -> set[str]:
    """The packages of pyproject.toml that these extras install, and those of every installation."""
    groups = project()["project"]["optional-dependencies"]
    lines = [*project()["project"]["dependencies"], *(line for e in extras for line in groups[e])]
    return {_canonical(re.match(r"[\w.-]+", line)[0]) for line in lines} - {"ermgap"}


def test_every_package_that_the_code_imports_is_a_dependency():
    imported = {
        _canonical(INSTALLED_AS.get(name, name))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for name in _imports(file)
    }
    own = {*PACKAGES, *map(_canonical, sys.stdlib_module_names)}
    assert imported - own - declared("endpoint", "hf") == set()


def _imports(file: Path) -> set[str]:
    """The top-level packages that `file` imports anywhere, relative imports left out."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
    return {name.split(".")[0] for name in names}


def test_constraints_satisfy_the_ranges_of_pyproject():
    requirements = pytest.importorskip("packaging.requirements")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {_canonical(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    for line in project()["project"]["dependencies"]:
        requirement = requirements.Requirement(line)
        assert pins[_canonical(requirement.name)] in requirement.specifier, line


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_data_file_of_a_package_is_declared_as_package_data():
    declared = project()["tool"]["setuptools"]["package-data"]
    shipped = {
        file
        for package, patterns in declared.items()
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    data = {file for file in tracked() if file.relative_to(ROOT).parts[0] in PACKAGES}
    data = {file for file in data if not _is_page(file)}
    code = {file for file in data if file.suffix == ".py"}
    assert data - code - shipped == set()
    loose = {file for file in code - shipped if not _in_a_package(file.parent)}
    assert loose == set(), "a folder of code has no __init__.py, so a wheel would leave it out"


def _is_page(file: Path) -> bool:
    """Whether it is a page of the repository or a picture of one, not the program's."""
    return "gallery" in file.parts or (file.name == "README.md" and "data" not in file.parts)


def _in_a_package(folder: Path) -> bool:
    return folder == ROOT or ((folder / "__init__.py").is_file() and _in_a_package(folder.parent))


def test_presets_are_package_data():
    presets = sorted((ROOT / "sweeps" / "presets").glob("*.yaml"))
    assert "presets/*.yaml" in project()["tool"]["setuptools"]["package-data"]["sweeps"]
    assert "demo" in {preset.stem for preset in presets}


def test_no_file_names_a_home_folder_or_a_file_index():
    own = Path(__file__).resolve()
    # `file://cluster/...` is how the AWS command line is told to read one of our files.
    folders, index = (
        r"/(?:root|work|Users/\w+|home/(?!ray\b|ubuntu\b)\w+)/",
        r"file://(?!cluster/)[/\w]",
    )
    pattern = re.compile(f"{folders}|{index}")
    texts = [file for file in tracked() if file != own and b"\0" not in file.read_bytes()[:4096]]
    hits = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in texts
        if (match := pattern.search(file.read_text(encoding="utf-8", errors="replace")))
    ]
    assert hits == []


def test_results_plots_and_environments_are_ignored_by_git():
    paths = ["results/demo/trials.jsonl", "analysis/plots/demo/pareto.png", ".venv/bin/python",
             "ermgap.egg-info/PKG-INFO", "ermgap/__pycache__/x.pyc", ".pytest_cache/x"]  # fmt: skip
    tracked()
    done = subprocess.run(
        ["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == paths
    kept = [
        "sweeps/presets/demo.yaml",
        "ermgap/corpora/data/demo/clips.ogg",
        "analysis/gallery/a.png",
    ]
    done = subprocess.run(
        ["git", "check-ignore", *kept], cwd=ROOT, capture_output=True, check=False
    )
    assert done.stdout == b""


def test_the_check_of_a_clean_checkout_is_executable_bash_that_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "\nmake test" in script.read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_wheel_carries_the_code_the_presets_and_the_demo_corpus(tmp_path):
    source = tmp_path / "source"
    for file in tracked():
        target = source / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)],
        check=True,
    )
    (wheel,) = tmp_path.glob("ermgap-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(file.relative_to(ROOT))
        for file in tracked()
        if file.relative_to(ROOT).parts[0] in PACKAGES and not _is_page(file)
    }
    assert wanted <= names
    assert not any(name.startswith(("tests/", "cluster/", "results/")) for name in names)
