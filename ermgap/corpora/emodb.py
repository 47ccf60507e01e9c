"""Loader of the Berlin Database of Emotional Speech (German, acted, ten speakers, ten sentences).

    python sweeps/pareto.py --data emodb=PATH

PATH is any folder over the clips (`wav/03a01Fa.wav` officially; .flac is read too). The name holds
speaker, sentence, emotion and version, from which transcript, gender and the attribute `age` (20s,
30s) follow. Boredom is read as such, and excluded later unless it is one of the labels.
"""

from __future__ import annotations

import re
from pathlib import Path

from ermgap.corpora.folder import load_named
from ermgap.corpora.table import Corpus

NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[A-Z])[a-z]?")
GENDERS = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "male"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "female"),
}
AGES = {  # in years
    "03": 31, "08": 34, "09": 21, "10": 32, "11": 26, "12": 30, "13": 32, "14": 35, "15": 25,
    "16": 31,
}  # fmt: skip
# The corpus's own page lists sex and age of its speakers; it does not say that they stated them.
PROVENANCE = {"gender": "annotated", "age": "annotated"}
EMOTIONS = {
    "W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "joy", "T": "sadness",
    "N": "neutral",
}  # fmt: skip
TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}


def load(path: Path | None) -> Corpus:
    """The table of EmoDB (`emodb/03a01Fa`, speaker and group `emodb_03`), without splits.

    Raises UserError when `path` is not a folder with .wav or .flac files.
    """
    return load_named(
        path,
        corpus="emodb",
        example="wav/03a01Fa.wav",
        name=NAME,
        describe=_describe,
        attributes=("age",),
        provenance=PROVENANCE,
    )


def _describe(name: re.Match) -> dict | str:
    known = {"speaker": GENDERS, "sentence": TEXTS, "emotion letter": EMOTIONS}
    for (what, values), value in zip(known.items(), name.groups(), strict=True):
        if value not in values:
            return f"EmoDB has no {what} {value}"
    return {
        "language": "de",
        "gender": GENDERS[name["speaker"]],
        "age": f"{AGES[name['speaker']] // 10}0s",
        "emotion": EMOTIONS[name["emotion"]],
        "speaker": f"emodb_{name['speaker']}",
        "transcript": TEXTS[name["text"]],
    }
