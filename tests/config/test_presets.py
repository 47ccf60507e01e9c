"""Presets: what they extend, and that the ablations are the paper's grid over their base."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ermgap import config
from ermgap.config import differing_keys
from ermgap.errors import UserError
from sweeps.search import space
from sweeps.search.searcher import require_space
from sweeps.setup import plan

PRESETS = sorted(path.stem for path in plan.PRESETS.glob("*.yaml"))


def preset(folder: Path, name: str, values: dict | str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
    return path


# extends ------------------------------------------------------------------------------------------


def test_later_presets_and_the_file_itself_win_key_by_key(tmp_path):
    preset(tmp_path, "a", {"train": {"lr": 1e-4, "epochs": 3, "batch": 7}, "adapter": {"r": 4}})
    preset(tmp_path, "b", {"train": {"lr": 2e-4, "epochs": 4}, "data": {"folds": 5}})
    mine = preset(tmp_path, "mine", {"extends": ["a", "b"], "train": {"lr": 3e-4}})
    made = config.load(mine)
    assert (made.train.lr, made.train.epochs, made.train.batch) == (3e-4, 4, 7)
    assert (made.adapter.r, made.data.folds) == (4, 5)
    other = preset(tmp_path, "other", {"extends": ["b", "a"]})
    assert (config.load(other).train.lr, config.load(other).train.epochs) == (1e-4, 3)


def test_settings_of_the_command_line_win_over_all(tmp_path):
    preset(tmp_path, "a", {"train": {"lr": 1e-4}})
    mine = preset(tmp_path, "mine", {"extends": "a", "train": {"epochs": 2}})
    made = config.load(mine, ["train.lr=5e-4", "train.epochs=9"])
    assert (made.train.lr, made.train.epochs) == (5e-4, 9)


def test_a_list_is_replaced_and_points_are_added(tmp_path):
    one = {"data": {"corpora": ["emodb", "ravdess"]}, "sweep": {"points": {"x": {"loss": "erm"}}}}
    preset(tmp_path, "a", one)
    two = {"data": {"corpora": ["demo"]}, "sweep": {"points": {"y": {"loss": "vrex"}}}}
    made = config.load(preset(tmp_path, "mine", {"extends": ["a"]} | two))
    assert made.data.corpora == ("demo",)
    assert list(made.sweep.points) == ["x", "y"]


def test_presets_extend_through_several_files_and_may_share_one(tmp_path):
    preset(tmp_path, "base", {"train": {"epochs": 2, "batch": 5}})
    preset(tmp_path, "a", {"extends": "base", "train": {"batch": 6}})
    preset(tmp_path, "b", {"extends": ["base"]})
    mine = preset(tmp_path, "mine", {"extends": ["b", "a"]})
    assert (config.load(mine).train.epochs, config.load(mine).train.batch) == (2, 6)


def test_an_empty_extends_or_section_does_no_harm(tmp_path):
    preset(tmp_path, "empty", "")
    mine = preset(tmp_path, "mine", "extends: [empty]\ntrain:\n")
    assert config.load(mine) == config.Config()
    assert config.load(preset(tmp_path, "none", "extends:\n")) == config.Config()


MISTAKES = {
    "itself": ({"mine": {"extends": "mine"}}, ("mine.yaml", "extends itself")),
    "a circle": (
        {"mine": {"extends": "a"}, "a": {"extends": ["b"]}, "b": {"extends": ["mine"]}},
        ("mine.yaml", "extends itself"),
    ),
    "a circle below": (
        {"mine": {"extends": "a"}, "a": {"extends": "b"}, "b": {"extends": "a"}},
        ("a.yaml", "extends itself"),
    ),
    "a file that is gone": ({"mine": {"extends": ["gone"]}}, ("gone.yaml", "check its name")),
    "a list of numbers": ({"mine": {"extends": [3]}}, ("mine.yaml", "extends: [small]")),
    "a list of lists": ({"mine": {"extends": [["a"]]}}, ("mine.yaml", "extends: [small]")),
    "a section": ({"mine": {"extends": {"gone": 1}}}, ("gone.yaml",)),
    "a preset that is a list": ({"mine": {"extends": "a"}, "a": "- 1\n"}, ("a.yaml", "sections")),
    "a preset that is no YAML": ({"mine": {"extends": "a"}, "a": "train: ["}, ("a.yaml", "YAML")),
    "a preset with an unknown key": (
        {"mine": {"extends": "a"}, "a": {"train": {"epoch": 3}}},
        ("train.epoch", "train.epochs"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_extends_is_one_clear_sentence(name, tmp_path):
    files, words = MISTAKES[name]
    for stem, values in files.items():
        preset(tmp_path, stem, values)
    with pytest.raises(UserError) as refused:
        config.load(tmp_path / "mine.yaml")
    said = str(refused.value)
    assert all(word in said for word in words) and "\n" not in said, said


# The presets that come with the project -----------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_run(name):
    require_space(config.load(plan.preset_path(name)))


@pytest.mark.parametrize(("name", "base"), [("ablation", "paper"), ("ablation-small", "small")])
def test_an_ablation_is_the_paper_s_grid_over_its_base(name, base):
    made, under = (config.load(plan.preset_path(one)) for one in (name, base))
    assert differing_keys(under.to_dict(), made.to_dict()) == ["sweep.points"]
    runs = [space.apply(point, made) for point in made.sweep.points.values()]
    grid = []
    for run in runs:
        changed = differing_keys(under.to_dict(), run.replace({"sweep.points": {}}).to_dict())
        assert {key.split(".")[0] for key in changed} <= {"objective"}
        one = run.objective
        assert one.estimator == "batch" and not one.relative and one.lambda_0 == 0
        grid.append((one.loss, one.schedule, one.lambda_max, one.p))
    assert grid[0][0] == "erm"
    fixed = [("minmaxgap", "constant", lam, p) for p in (1.0, 2.0) for lam in (1.0, 5.0, 10.0)]
    adaptive = [("minmaxgap", "adaptive", 10.0, p) for p in (1.0, 2.0)]
    assert sorted(grid[1:]) == sorted(fixed + adaptive)
    assert {run.objective.epsilon for run in runs if run.objective.schedule == "adaptive"} == {0.02}


def test_the_names_of_the_grid_say_what_is_in_them():
    made = config.load(plan.preset_path("ablation"))
    for name, point in list(made.sweep.points.items())[1:]:
        weight, exponent = name.split(", p ")
        assert point["p"] == float(exponent)
        if weight == "adaptive":
            assert point["schedule"] == "adaptive"
        else:
            assert point["lambda_max"] == float(weight.removeprefix("lambda "))


def test_the_paper_s_preset_is_the_paper_s_training():
    paper = config.load(plan.preset_path("paper"))
    assert paper.backbone.name == "qwen2-audio-7b" and paper.data.corpora == ("meld_st",)
    assert (paper.adapter.r, paper.adapter.alpha, paper.adapter.dropout) == (16, 32, 0.05)
    one = paper.train
    assert (one.epochs, one.batch, one.lr, one.weight_decay, one.patience) == (
        20,
        64,
        5e-5,
        0.01,
        5,
    )
    assert set(paper.data.modalities) == {"speech", "speech+text"}
