"""The audit of dependencies: a report read, and silence never taken for a clean bill."""

from __future__ import annotations

import json

import dependency_audit
import pytest

FLAW = {"id": "PYSEC-2030-1", "fix_versions": ["1.1"], "aliases": [], "description": "Bad."}


def report(*packages: dict) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def package(name: str, *vulns: dict) -> dict:
    return {"name": name, "version": "1.0", "vulns": list(vulns)}


def skipped(name: str) -> dict:
    return {"name": name, "skip_reason": "not found"}


def test_a_flaw_is_named_with_the_version_that_mends_it_and_ends_with_status_1():
    lines, status = dependency_audit.verdict(report(package("a"), package("b", FLAW)))
    assert status == 1 and lines[0] == "audit: b 1.0: PYSEC-2030-1, mended in 1.1"
    assert lines[-1] == "audit: 1 known vulnerabilities in 2 packages"


def test_no_flaw_is_status_0_and_what_was_skipped_is_told():
    lines, status = dependency_audit.verdict(report(package("a"), package("b"), skipped("c")))
    assert status == 0
    assert lines == ["audit: no known vulnerability in 2 packages, 1 unknown to the service"]


@pytest.mark.parametrize(
    "text", ["", "no network", "[]", report(), report(skipped("a"), skipped("b"))]
)
def test_a_service_that_knows_nothing_is_no_clean_bill(text):
    assert dependency_audit.verdict(text) == ([], None)


def test_where_nothing_answers_the_audit_says_that_it_was_not_run(capsys):
    assert dependency_audit.main("/no/such/program") == 0
    assert capsys.readouterr().out.startswith("audit: not run: ")
