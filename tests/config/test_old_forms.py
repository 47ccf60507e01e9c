"""Keys of earlier versions: refused with the new name, and read in the records of a sweep."""

import copy

import pytest
import yaml

from ermgap import config
from ermgap.errors import UserError
from ermgap.records import Records
from tests.helpers import fake_sweep

OLD = {
    "objective.weight=linear": "objective.schedule",
    "sweep.gang=4": "sweep.slots",
    "sweep.space={weight: [linear]}": "schedule",
    "sweep.points={a: {loss: vrex, weight: linear}}": "schedule",
}


@pytest.mark.parametrize("setting", OLD)
def test_an_old_key_is_refused_with_what_to_write_instead(setting, tmp_path):
    (tmp_path / "mine.yaml").write_text("train: {epochs: 3}\n", encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        config.load(tmp_path / "mine.yaml", [setting])
    assert OLD[setting] in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_sweep_written_with_old_keys_is_read_as_one_written_today(tmp_path):
    sections = config.Config().to_dict()
    records = fake_sweep.write(tmp_path / "sweep", [{"acc": 0.5, "max_gap": 0.1}], config=sections)
    trials = records.trials()
    assert trials[0].hyperparameters["schedule"] == "linear"

    old = copy.deepcopy(sections)
    old["objective"]["weight"] = old["objective"].pop("schedule")
    old["sweep"] |= {"gang": 1, "space": {"weight": ["linear"]}}
    described = yaml.safe_dump(records.sweep | {"config": old})
    (records.directory / "sweep.yaml").write_text(described, encoding="utf-8")
    path = records.directory / "trials.jsonl"
    rows = path.read_text(encoding="utf-8")
    path.write_text(rows.replace('"schedule"', '"weight"'), encoding="utf-8")

    read = Records.open(records.directory)
    again = config.from_dict(read.sweep["config"])
    assert again.replace({"sweep.space": {}}) == config.Config()
    assert again.sweep.space == {"schedule": ["linear"]}
    assert [trial.hyperparameters for trial in read.trials()] == [
        trial.hyperparameters for trial in trials
    ]
