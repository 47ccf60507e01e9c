"""Loader of RAVDESS speech (English, acted, 24 actors, two sentences).

    python sweeps/pareto.py --data ravdess=PATH

PATH is any folder over the clips (`Actor_12/03-01-06-01-02-01-12.wav` officially; .flac is read
too). The seven fields of a name are modality, channel, emotion, intensity, sentence, repetition and
actor. Only audio (03) of speech (01) is used; calm is excluded later unless it is a label. The
attribute `intensity` is normal or strong, as the actors were asked for.
"""

from __future__ import annotations

import re
from pathlib import Path

from ermgap.corpora.folder import load_named
from ermgap.corpora.table import Corpus

FIELDS = ("modality", "channel", "emotion", "intensity", "sentence", "repetition", "actor")
NAME = re.compile("-".join(rf"(?P<{field}>\d\d)" for field in FIELDS))
INTENSITIES = {"01": "normal", "02": "strong"}
PROVENANCE = {"gender": "annotated"}  # odd actors are male, says the corpus's own page
EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "joy", "04": "sadness", "05": "anger", "06": "fear",
    "07": "disgust", "08": "surprise",
}  # fmt: skip
TEXTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}


def load(path: Path | None) -> Corpus:
    """The table of RAVDESS (`ravdess/03-01-...`, speaker and group `ravdess_12`), without splits.

    Raises UserError when `path` is not a folder with .wav or .flac files.
    """
    example = "Actor_12/03-01-06-01-02-01-12.wav"
    return load_named(
        path,
        corpus="ravdess",
        example=example,
        name=NAME,
        describe=_describe,
        attributes=("intensity",),
        provenance=PROVENANCE,
    )


def _describe(name: re.Match) -> dict | str:
    if (name["modality"], name["channel"]) != ("03", "01"):
        return "not speech audio (03-01)"
    if not 1 <= int(name["actor"]) <= 24:
        return f"RAVDESS has no actor {name['actor']}"
    if name["emotion"] not in EMOTIONS or name["sentence"] not in TEXTS:
        return f"RAVDESS has no emotion {name['emotion']} with sentence {name['sentence']}"
    return {
        "language": "en",
        "gender": "male" if int(name["actor"]) % 2 else "female",
        "intensity": INTENSITIES.get(name["intensity"], ""),
        "emotion": EMOTIONS[name["emotion"]],
        "speaker": f"ravdess_{name['actor']}",
        "transcript": TEXTS[name["sentence"]],
    }
