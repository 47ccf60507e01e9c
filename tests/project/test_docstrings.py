"""The arguments that a docstring explains are those that its function or class has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.helpers.source_files import identifier, python_files

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def explained(docstring: str, section: str) -> set[str]:
    """The names that a section of a docstring explains: `a, b: what they are`."""
    match = re.search(rf"^( *){section}:\n((?:\1 +.*\n?|\n)*)", docstring + "\n", re.MULTILINE)
    if not match:
        return set()
    lines = [line for line in match[2].splitlines() if line.strip()]
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    starts = [line[indent:] for line in lines if not line[indent].isspace()]
    names = [re.match(r"([\w*, ]+):", line) for line in starts]
    return {name.strip(" *") for found in names if found for name in found[1].split(",")}


def parameters(function: ast.AST) -> set[str]:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return {argument.arg for argument in every if argument}


def mistakes(tree: ast.AST) -> Iterator[str]:
    """Each name that is explained and does not exist, with its function or class."""
    for node in ast.walk(tree):
        if not isinstance(node, (*FUNCTION, ast.ClassDef)):
            continue
        arguments = explained(ast.get_docstring(node) or "", "Args")
        if isinstance(node, ast.ClassDef):
            made = [n for n in node.body if isinstance(n, FUNCTION) and n.name == "__init__"]
            fields = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign)}
            known = set.union(fields, *map(parameters, made))
        else:
            known = parameters(node)
        for name in sorted(arguments - known):
            yield f"line {node.lineno}: {node.name} explains {name}"


@pytest.mark.parametrize("path", python_files(), ids=identifier)
def test_explained_arguments_exist(path):
    assert list(mistakes(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_a_name_that_is_gone_is_seen():
    explained = ["Args:", "    a: first. c: second.", "    d: third.", "        e: not a name"]
    docstring = "\n    ".join(['"""Sum.', "", *explained, '"""'])
    source = f"def f(a, *, b):\n    {docstring}\n"
    assert list(mistakes(ast.parse(source))) == ["line 1: f explains d"]
