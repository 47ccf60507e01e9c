"""What no module may do, read from its source: pickles, archives, shells, code of a model.

The real attempts are in test_security.py. Weights are loaded from safetensors alone, and wherever
transformers could ask whether to run code that comes with a model, it is told no.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle",
    "tarfile", "zipfile", "shutil.unpack_archive", "pandas.read_pickle", "pandas.HDFStore",
    "pandas.read_hdf", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
    "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.Loader", "yaml.CLoader", "numpy.fromregex",
    "eval", "exec", "compile", "os.system", "os.popen", "torch.jit.load", "torch.hub",
    "datasets.Dataset.from_generator", "xml.etree", "xml.sax", "xml.dom", "ssl._create_unverified",
}  # fmt: skip
# The subclass of the safe loader is the one thing that calls `yaml.load`.
ALLOWED = {("ermgap/config/safe_yaml.py", "yaml.load")}
SOURCES = sorted(
    path for room in ("ermgap", "sweeps", "analysis") for path in (ROOT / room).rglob("*.py")
)


def used(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Dotted names that a module imports or uses, `np.load` as `numpy.load`."""
    alias = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                alias[name.asname or name.name.split(".")[0]] = (
                    name.name if name.asname else name.name.split(".")[0]
                )
                yield name.name, node
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for name in node.names:
                alias[name.asname or name.name] = f"{node.module}.{name.name}"
                yield f"{node.module}.{name.name}", node
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            words = ast.unparse(node)
            first, dot, rest = words.partition(".")
            yield alias.get(first, first) + dot + rest, node


def problems(source: str, name: str) -> Iterator[str]:
    """What a module does that it must not."""
    tree = ast.parse(source)
    for word, node in used(tree):
        for bad in FORBIDDEN:
            if (word == bad or word.startswith(f"{bad}.")) and (name, bad) not in ALLOWED:
                yield f"{name}:{node.lineno} uses {word}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (f"{name}:{node.lineno} {what}" for what in _wrong_call(node))


def _wrong_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if given.get("trust_remote_code", "False") != "False":
        yield "trusts code of a model"
    if given.get("allow_pickle", "False") != "False" or given.get("weights_only", "True") != "True":
        yield "reads pickles"
    if called == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if given.get("shell", "False") != "False":
        yield "starts a shell"
    if given.get("verify") == "False":
        yield "trusts any certificate"
    if re.search(r"(ForConditionalGeneration|Model)\.from_pretrained$", called):
        if given.get("use_safetensors") != "True":
            yield "loads weights that may be pickles"
    if re.search(r"\bAuto\w+\.from_pretrained$", called) and None not in given:
        if given.get("trust_remote_code") != "False":
            yield "may ask at the terminal whether to trust code"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_reads_pickles_unpacks_archives_or_trusts_code(path):
    name = path.relative_to(ROOT).as_posix()
    assert list(problems(path.read_text(encoding="utf-8"), name)) == []


WRONG = """
import pickle
import numpy as np, tarfile as t
from yaml import load
from pandas import read_pickle as r
np.load("x", allow_pickle=True)
torch.load("x")
torch.load("x", weights_only=False)
AutoModel.from_pretrained("x", trust_remote_code=True)
AutoTokenizer.from_pretrained("x")
subprocess.run("x", shell=True)
eval("x")
"""


def test_the_check_of_the_source_finds_what_it_looks_for():
    found = {int(line.split(":")[1].split()[0]) for line in problems(WRONG, "wrong.py")}
    assert found == set(range(2, 13)) - {0}
