"""Systems without a model: free text read as a label, the predictions table, the registry."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from ermgap import baselines as systems
from ermgap import metrics
from ermgap.baselines.answers import REFUSED, UNPARSABLE, parse_answer
from ermgap.config import MELD_LABELS
from ermgap.corpora import table as tables
from ermgap.errors import UserError

PLAIN = {
    "joy": "joy", " Joy.\n": "joy", "JOY!!!": "joy", '"Sadness"': "sadness", "„Wut“": "anger",
    "**Anger**": "anger", "_fear_": "fear", "1. Surprise": "surprise", "`disgust`": "disgust",
    "angry angry": "anger", "The speaker sounds angry.": "anger", "ｊｏｙ": "joy",
    "The speaker's emotion is happiness": "joy", "A surprised, surprised voice": "surprise",
}  # fmt: skip
MARKED = {
    "Answer: joy": "joy", "**Emotion:** Fear": "fear", 'Emotion = "surprised"': "surprise",
    '{"emotion": "joy"}': "joy", '{"emotion": "Joy", "why": "no anger, no fear"}': "joy",
    '```json\n{"label": "Happy", "score": 0.9}\n```': "joy", '{"emotion": "joy': "joy",
    '{"emotion": null}': UNPARSABLE, '{"emotion": ["joy", "anger"]}': UNPARSABLE,
    "Emotion: **Sadness**\nThough it could be anger.": "sadness",
    "Joy\n\nOne might also hear surprise.": "joy", "It is **fear**, hardly anger": "fear",
    "<think>joy? or anger?</think>fear": "fear", "<think>joy, I would say": UNPARSABLE,
    "The words are sad. Overall, the tone is angry.": "anger",
}  # fmt: skip
DENIED = {
    "not angry but sad": "sadness", "no anger": UNPARSABLE, "It isn't joy.": UNPARSABLE,
    "Not anger, it's sadness.": "sadness", "The emotion is not anger; it is sadness.": "sadness",
    "neither angry nor sad": UNPARSABLE, "neither angry nor sad but neutral": "neutral",
    "not angry, sad, or fearful, but neutral": "neutral", "more sad than angry": "sadness",
    "sad rather than angry": "sadness", "There is no doubt that she is angry": "anger",
    "He can't hide his anger": "anger", "not only angry but also sad": UNPARSABLE,
    "nicht wütend, sondern traurig": "sadness", "keine Freude": UNPARSABLE,
    "怒りではなく悲しみ": "sadness", "怒っていない": UNPARSABLE, "嬉しくない": UNPARSABLE,
}  # fmt: skip
OTHER_LANGUAGES = {
    "Freude": "joy", "Die Sprecherin klingt wütend.": "anger", "eine traurige Stimme": "sadness",
    "wuetend": "anger", "Überraschung": "surprise", "Ekel": "disgust", "ängstlich": "fear",
    "怒り": "anger", "喜びです。": "joy", "悲しい気持ちです": "sadness", "感情:驚き": "surprise",
    "嫌悪感": "disgust", "恐怖": "fear", "中立": "neutral", "感情はangerです": "anger",
    "びっくりしている": "surprise", "喜怒哀楽": UNPARSABLE,
}  # fmt: skip
NO_CHOICE = [
    "", "   ", "???", "anger or joy", "anger/sadness", ", ".join(MELD_LABELS), "unhappy", "calm",
    "I'm afraid I don't know", "I'd be happy to help! Please upload the recording.", "n/a",
]  # fmt: skip
DECLINED = [
    "I'm sorry, I can't determine emotions from voice",
    "I’m sorry, but I can’t determine emotions from voice.",
    "I cannot determine whether the emotion is anger.",
    "I can't identify emotions like anger. Please send text such as 'I am happy'.",
    "As an AI, I don't have the ability to hear audio.",
    "The emotion cannot be determined.", "Sorry.", "No audio was provided.",
    "Ich kann die Emotion leider nicht bestimmen.", "Es tut mir leid.",
    "申し訳ありませんが、感情を判断できません。", "音声から感情を特定することはできません",
]  # fmt: skip
TURNED = {
    "I can't be sure, but the speaker sounds angry.": "anger",
    "I cannot determine it with certainty. However, the tone sounds sad.": "sadness",
    "I can't identify speakers.\nAnger": "anger",
    'The speaker says "I can\'t tell you how happy I am" and sounds sad.': "sadness",
    "The speaker says sorry and sounds sad.": "sadness",
}
READ = PLAIN | MARKED | DENIED | OTHER_LANGUAGES | TURNED


@pytest.mark.parametrize(("text", "label"), READ.items())
def test_an_answer_is_read_as_a_person_would(text, label):
    assert parse_answer(text, MELD_LABELS) == label


@pytest.mark.parametrize("text", NO_CHOICE)
def test_an_answer_without_one_clear_label_is_unparsable(text):
    assert parse_answer(text, MELD_LABELS) == UNPARSABLE


@pytest.mark.parametrize("text", DECLINED)
def test_a_model_that_declines_has_refused_even_when_it_names_an_emotion(text):
    assert parse_answer(text, MELD_LABELS) == REFUSED


def test_every_label_and_alias_is_read_as_itself_whatever_the_set_of_labels():
    for labels in (MELD_LABELS, MELD_LABELS[::-1], ("calm", "boredom"), ("happy", "sad", "none!")):
        assert [parse_answer(label.upper(), labels) for label in labels] == list(labels)
    assert parse_answer("She is joyful", ("happiness", "anger")) == "happiness"
    assert parse_answer("a happy voice", ("joy", "happy")) == "happy"
    assert parse_answer("joy", ("anger", "sadness")) == UNPARSABLE


def test_nothing_that_a_model_says_breaks_the_reading():
    odd = [None, float("nan"), "\ud800", '{"a": ' * 5000, '"' * 9000, "not " * 9000, "{}", "\x00"]
    random = np.random.default_rng(0)
    odd += ["".join(map(chr, random.integers(1, 0x3100, 300))) for _ in range(50)]
    assert {parse_answer(text, MELD_LABELS) for text in odd} == {UNPARSABLE}
    assert parse_answer("joy " + "x" * 100_000, MELD_LABELS) == "joy"


# The table and the registry -----------------------------------------------------------------


def utterances(n: int = 4) -> pd.DataFrame:
    return tables.frame(
        [
            {"utterance_id": f"c/{i}", "corpus": "c", "language": "en", "speaker": f"s{i}",
             "gender": ("female", "male")[i % 2], "emotion": ("joy", "anger")[i // 2 % 2],
             "path": "none.wav", "split": "dev"}
            for i in range(n)
        ]
    )  # fmt: skip


def test_a_predictions_table_keeps_order_and_is_read_by_the_metrics():
    table = utterances().iloc[::-1]
    scores = np.log(np.full((4, 2), 0.5))
    made = systems.predictions_table(
        table, modality="speech", prediction=["anger", UNPARSABLE, "joy", REFUSED],
        answers=["Anger!", "?", "joy", "no"], log_probabilities=scores, labels=("anger", "joy"),
    )  # fmt: skip
    assert list(made["utterance_id"]) == ["c/3", "c/2", "c/1", "c/0"] and list(made.index)[0] == 0
    assert list(made) == [
        "utterance_id", "language", "modality", "gender", "speaker", "group", "split", "label",
        "prediction", "logp_anger", "logp_joy", "answer",
    ]  # fmt: skip
    assert metrics.evaluate(made, labels=("anger", "joy"))["acc"] == 0.5


def test_a_predictions_table_refuses_what_does_not_fit():
    given = {"prediction": ["joy"] * 4, "labels": ("anger", "joy")}
    with pytest.raises(UserError, match="no modality 'text'"):
        systems.predictions_table(utterances(), modality="text", **given)
    with pytest.raises(ValueError, match="shape"):
        scores = np.zeros((4, 3))
        systems.predictions_table(
            utterances(), modality="speech", log_probabilities=scores, **given
        )


def test_a_system_is_written_as_a_name_and_an_argument():
    assert systems.parse("zero-shot") == ("zero-shot", None)
    spec = "openai=gpt-4o-mini-audio-preview@https://host/v1,rpm=60"
    assert systems.parse(spec) == ("openai", spec.removeprefix("openai="))
    with pytest.raises(UserError, match="did you mean 'openai'"):
        systems.parse("opnai=x")
    with pytest.raises(UserError, match="empty argument"):
        systems.parse("openai=")


def test_naming_the_systems_loads_no_torch_no_ray_and_no_system():
    program = (
        "import sys, ermgap.baselines, ermgap.baselines.answers\n"
        "print(*{n.split('.')[0] for n in sys.modules} & {'torch', 'ray', 'requests'},"
        "*[n for n in sys.modules if n.endswith('.endpoint')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
