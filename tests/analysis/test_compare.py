"""Several sweeps side by side."""

from __future__ import annotations

import pytest
from fake_sweep import THREE, many, write

from analysis import __main__, compare
from analysis.front import front
from ermgap.errors import UserError


def test_sweeps_are_compared_up_to_one_reference_point(tmp_path, capsys):
    first = write(tmp_path / "first", many(0), with_predictions=False)
    second = write(tmp_path / "second", many(1), with_predictions=False,
                   reference_point={"acc": 0.10, "max_gap": 0.4})  # fmt: skip
    plots = tmp_path / "plots"
    assert __main__.main([str(first.directory), str(second.directory), "--plots", str(plots)]) == 0
    out = capsys.readouterr().out
    assert "acc = 0.1, max_gap = 0.4" in out and "different dev utterances" not in out
    made = compare.write([first.directory, second.directory], plots)
    for info, volume in zip(
        (front.info(first), front.info(second)), made["hypervolume"], strict=True
    ):
        values = [[p.values[n] for n in info.objectives] for p in info.front]
        wanted = front.hypervolume(values, reference=(0.1, 0.4), directions=info.directions)
        assert volume == pytest.approx(wanted)
    assert (plots / "compare-first-second" / "compare.png").stat().st_size > 20_000


def test_other_objectives_are_refused(tmp_path):
    first = write(tmp_path / "first", THREE, with_predictions=False)
    names = ["w_f1", "max_gap"]
    second = write(tmp_path / "second", THREE, with_predictions=False, objectives=names,
                   directions={"w_f1": "max", "max_gap": "min"},
                   reference_point=dict.fromkeys(names, 0.3))  # fmt: skip
    with pytest.raises(UserError, match="second has the objectives w_f1, max_gap and first"):
        compare.write([first.directory, second.directory], tmp_path)


def test_an_unfinished_sweep_is_compared_too(tmp_path):
    first = write(tmp_path / "first", THREE, with_predictions=False)
    running = [{"acc": 0.3, "max_gap": 0.2, "status": "running"}]
    second = write(tmp_path / "second", running, with_predictions=False, done=False)
    made = compare.write([first.directory, second.directory], tmp_path)
    assert made["hypervolume"].tolist()[1] == 0.0 and made["trials"].tolist() == [3, 0]
