"""One plain vocabulary: terms that were given up stand in no name and in no text.

The names are read from the source's tokens; the texts are strings, docstrings, comments and pages.
"""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.helpers.source_files import ROOMS, ROOT, identifier, python_files

# As a whole name: each says nothing of what it holds.
NAMES = {"chosen", "found", "held", "lambda_", "left", "material", "one", "told", "word", "words"}
# As a part of a name, in snake_case or CamelCase.
PARTS = {"bell", "bells", "desk", "found", "gang", "gangs", "mend", "spared", "told"}
TEXTS = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(leav(e|es|ing)|left) away\b": "omit",
    r"\btold\b": "say what is given, read or asked for",
    r"\bis refused\b": "say what is wrong and what to write instead",
    r"\bword of\b": "message",
    r"\bwithout a word\b": "without a message",
    r"\bwhat stands\b": "say what it is",
    r"(?<!sweep\.)\bgangs?\b": "trials, or the worker group",
    r"\bspared\b": "not counted",
    r"\bpen\b": "say what it writes",
}


def pages() -> list[Path]:
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*") if _is_page(path)]
    return sorted([*found, ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


def _is_page(path: Path) -> bool:
    if path.name == "prompts.yaml":  # what a backbone reads, to the letter
        return False
    return path.suffix in (".md", ".yaml", ".html", ".js") and not {"gallery", "plots"} & {
        *path.parts
    }


def parts(name: str) -> set[str]:
    """The words of an identifier, in lower case; "not found" is an error's."""
    name = re.sub(r"not_?found", "", name, flags=re.IGNORECASE)
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def mistakes_of_names(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    names = [(token.start[0], token.string) for token in tokens if token.type == tokenize.NAME]
    return [
        f"line {line}: the name {name}"
        for line, name in names
        if name in NAMES or parts(name) & PARTS
    ]


def mistakes_of_text(text: str) -> list[str]:
    return [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; rather: {better}"
        for pattern, better in TEXTS.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", python_files(), ids=identifier)
def test_names_and_texts_of_a_module_use_the_vocabulary(path):
    source = path.read_text(encoding="utf-8")
    assert not mistakes_of_names(source) + mistakes_of_text(source)


@pytest.mark.parametrize("path", pages(), ids=identifier)
def test_a_page_uses_the_vocabulary(path):
    assert not mistakes_of_text(path.read_text(encoding="utf-8"))


def test_the_words_are_seen_where_they_stand():
    source = "def held_by(one, toldYou):\n    '''Mend it.'''\n    return one.left\n"
    assert len(mistakes_of_names(source)) == 4
    assert [line.split(";")[0] for line in mistakes_of_text(source)] == ["line 2: 'Mend'"]
