"""The project's Python files outside its tests, for tests that read the source."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("ermgap", "sweeps", "analysis", "cluster")


def python_files(*rooms: str) -> list[Path]:
    """The files of these rooms (all by default), sorted."""
    return sorted(path for room in rooms or ROOMS for path in (ROOT / room).rglob("*.py"))


def identifier(path: Path) -> str:
    """How a test is named after a file: its path in the project."""
    return str(path.relative_to(ROOT))
