"""Known vulnerabilities of the versions in constraints.txt, by pip-audit, where a service answers.

    python tests/project/dependency_audit.py PIP_AUDIT      # the program; `make audit` installs it

Exit status 1 only when something is found. A package index that has no list of vulnerabilities (a
mirror) makes pip-audit skip every package and call that success; here it is "not run".
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
SERVICES = ("pypi", "osv")
LONGEST_S = 120


def main(program: str) -> int:
    """Ask one service after the other until one knows the packages; print what it says."""
    for service in SERVICES:
        found, status = verdict(_ask(program, service))
        if status is not None:
            print("\n".join(found))
            return status
    print(f"audit: not run: no service of vulnerabilities answers ({', '.join(SERVICES)})")
    return 0


def _ask(program: str, service: str) -> str:
    """What pip-audit writes about constraints.txt; "" where it ends without a report."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--timeout", "15"]
    command = [program, "-r", str(CONSTRAINTS), *options, "-f", "json", "-s", service]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout


def verdict(report: str) -> tuple[list[str], int | None]:
    """Lines to print and the exit status; None where the service knew hardly any package."""
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [], None
    known = [package for package in packages if "skip_reason" not in package]
    if 2 * len(known) <= len(packages):
        return [], None
    lines = [
        f"audit: {package['name']} {package['version']}: {flaw['id']}, mended in "
        f"{', '.join(flaw['fix_versions']) or 'no version yet'}"
        for package in known
        for flaw in package["vulns"]
    ]
    status = int(bool(lines))
    skipped = len(packages) - len(known)
    told = f", {skipped} unknown to the service" if skipped else ""
    what = "no known vulnerability" if not lines else f"{len(lines)} known vulnerabilities"
    return [*lines, f"audit: {what} in {len(known)} packages{told}"], status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
