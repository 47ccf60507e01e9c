"""The Python page's blocks of code run as they are written, on a sweep and on anyone's table."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from ermgap.predict import predict
from tests.helpers import fake_sweep

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "ermgap" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(block: str) -> dict:
    names: dict = {}
    exec(compile(block, "ermgap/README.md", "exec"), names)
    return names


def test_there_are_three_short_blocks():
    assert len(BLOCKS) == 3 and max(block.count("\n") for block in BLOCKS) <= 11


def test_the_call_of_predict_fits_its_signature():
    calls = [
        node
        for node in ast.walk(ast.parse(BLOCKS[0]))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "predict"
    ]
    assert len(calls) == 1
    named = {keyword.arg: keyword.value for keyword in calls[0].keywords}
    inspect.signature(predict).bind(*calls[0].args, **named)


def test_metrics_of_anyone_s_predictions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = fake_sweep.predictions(fake_sweep.utterances(), right=0.7, handicap=0.3, seed=0)
    table = table[table["label"].isin(["anger", "joy", "neutral"])]
    columns = ["language", "modality", "gender", "label", "prediction"]
    table[columns].to_csv("predictions.csv", index=False)
    scores = run(BLOCKS[1])["scores"]
    assert scores["acc"] == pytest.approx((table["label"] == table["prediction"]).mean())
    assert scores["worst_cell"] in capsys.readouterr().out


def test_the_trials_and_the_front_of_a_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fake_sweep.write(
        tmp_path / "results" / "small",
        [{"acc": 0.5, "max_gap": 0.1}, {"acc": 0.4, "max_gap": 0.2, "loss": "erm"}],
    )
    assert len(run(BLOCKS[2])["predictions"]) == 480
    assert "t0001 finished 0.4 0.2" in capsys.readouterr().out
