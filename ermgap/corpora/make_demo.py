"""Makes the shipped corpus `demo`: synthetic clips with a gender gap planted in one language.

    python -m ermgap.corpora.make_demo [--out FOLDER] [--seed N]

Needs espeak-ng on the PATH. The plan of clips (voice, words, strength of every cue) depends on the
seed alone; the sound depends on the version of espeak-ng too. An emotion shows in the prosody
(pitch, range, rate, loudness, brightness, tremor, breath, contour) and in 60 % of the clips in the
wording. In the planted cell (`demo.PLANTED`) the cues are weaker and partly those of another
emotion, and fewer wordings tell: a model that follows the majority misreads them, while one that
gives this cell weight can learn them.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from ermgap.config import GENDERS
from ermgap.config import MELD_LABELS as EMOTIONS
from ermgap.corpora import demo_speech
from ermgap.corpora.demo import FIELDS, FOLDER, LANGUAGES, PLANTED, STYLE
from ermgap.corpora.demo_speech import RATE, VoiceCues
from ermgap.errors import UserError, command_line

SEED = 2
TRAIN_PER_EMOTION = 5
DEV_PER_CELL = 80
VOICES = {  # espeak-ng variants; a variant is in train or in dev, in all languages alike
    ("female", "train"): ("f1", "f3", "Annie"),
    ("female", "dev"): ("f2", "f4", "f5", "linda"),
    ("male", "train"): ("m1", "m3", "m7"),
    ("male", "dev"): ("m2", "m4", "m6", "m8"),
}
WORDING = 0.6  # share of clips whose wording expresses the emotion
WEAK_WORDING = 0.2
WEAK_OWN = 0.35  # size of the emotion's own cues in the planted cell
WEAK_OTHER = 0.7  # size of the cues that it borrows there from another emotion
BORROWED = {
    "anger": "joy", "joy": "anger", "fear": "surprise", "surprise": "fear", "sadness": "disgust",
    "disgust": "sadness", "neutral": "neutral",
}  # fmt: skip
SPREAD = 0.2  # each cue of a clip is 1 +- this much of its size
WEAK_SPREAD = 0.1
CUES = {
    "anger": VoiceCues(pitch=0.15, range=0.8, rate=0.3, gain=6, tilt=4, drive=4, swell=-8),
    "disgust": VoiceCues(pitch=-0.35, range=-0.5, rate=-0.25, creak=1.0, tilt=-1, swell=-5),
    "fear": VoiceCues(pitch=0.5, range=-0.6, rate=0.4, gain=-4, tremor=1.0, breath=0.35),
    "joy": VoiceCues(pitch=0.5, range=1.2, rate=0.1, gain=2, tilt=1.5, glide=-0.2),
    "neutral": VoiceCues(),
    "sadness": VoiceCues(
        pitch=-0.2, range=-1.2, rate=-0.4, gain=-9, tilt=-5, breath=0.2, glide=-0.4
    ),
    "surprise": VoiceCues(pitch=0.25, range=0.6, rate=-0.1, gain=2, glide=1.0, swell=10),
}


@dataclass(frozen=True)
class PlannedClip:
    """A row of the manifest without its duration, and how the clip is spoken."""

    language: str
    gender: str
    emotion: str
    variant: str
    split: str
    number: int
    transcript: str
    style: str
    expression: str
    cues: VoiceCues
    seed: int

    @property
    def speaker(self) -> str:
        return f"demo_{self.language}_{self.variant.lower()}"

    @property
    def path(self) -> str:
        voice = self.speaker.removeprefix("demo_")
        return f"audio/{voice}_{self.emotion}_{self.number:03d}.ogg"

    def speak(self) -> np.ndarray:
        """The clip as float32 [n], mono at 16 kHz, at most two seconds."""
        voice = f"{self.language}+{self.variant}"
        return demo_speech.speak(self.transcript, voice=voice, cues=self.cues, seed=self.seed)

    def row(self, *, duration_s: float) -> dict[str, str]:
        """The clip's row of the manifest."""
        other = {"duration_s": f"{duration_s:.4f}", "synthetic": "true", STYLE: self.style}
        return {name: other.get(name) or getattr(self, name) for name in (*FIELDS, STYLE)}


def plan(*, seed: int = SEED) -> list[PlannedClip]:
    """All clips of the corpus in the order of the manifest; the same seed gives the same plan."""
    rng, phrases = np.random.default_rng(seed), read_phrases()
    return [
        _clip(cell, number=number, phrases=phrases, rng=rng)
        for cell in product(LANGUAGES, GENDERS, ("train", "dev"), EMOTIONS)
        for number in range(_count(*cell))
    ]


def read_phrases() -> dict[tuple[str, str], list[str]]:
    """The phrases by (language, emotion); the emotion `any` marks those that express none."""
    table = pd.read_csv(FOLDER / "phrases.csv", keep_default_na=False)
    return table.groupby(["language", "emotion"])["text"].agg(list).to_dict()


def _count(language: str, gender: str, split: str, emotion: str) -> int:
    """Clips of a cell: five in train; 11 in dev, 12 for three emotions that differ by language."""
    if split == "train":
        return TRAIN_PER_EMOTION
    least, rest = divmod(DEV_PER_CELL, len(EMOTIONS))
    first = LANGUAGES.index(language) * rest
    return least + ((EMOTIONS.index(emotion) - first) % len(EMOTIONS) < rest)


def _clip(cell, *, number: int, phrases, rng: np.random.Generator) -> PlannedClip:
    language, gender, split, emotion = cell
    weak = (language, gender) == PLANTED
    voices = VOICES[gender, split]
    variant = voices[(number + EMOTIONS.index(emotion)) % len(voices)]
    expressive = rng.random() < (WEAK_WORDING if weak else WORDING)
    pool = phrases[language, emotion if expressive else "any"]
    return PlannedClip(
        *(language, gender, emotion, variant, split, number),
        transcript=pool[rng.integers(len(pool))],
        style="expressive" if expressive else "plain",
        expression="weak" if weak else "full",
        cues=_cues(emotion, weak=weak, rng=rng),
        seed=int(rng.integers(2**31)),
    )


def _cues(emotion: str, *, weak: bool, rng: np.random.Generator) -> VoiceCues:
    """The clip's cues: the emotion's own (and in the planted cell another's), each varied."""
    own, other = CUES[emotion], CUES[BORROWED[emotion]]
    spread = WEAK_SPREAD if weak else SPREAD
    sizes = dataclasses.asdict(own)
    if weak:
        borrowed = dataclasses.asdict(other)
        sizes = {
            name: WEAK_OWN * size + WEAK_OTHER * borrowed[name] for name, size in sizes.items()
        }
    values = {name: size * (1 + spread * rng.uniform(-1, 1)) for name, size in sizes.items()}
    values["pitch"] += rng.normal(scale=0.05)
    values["rate"] += rng.normal(scale=0.05)
    return VoiceCues(**values)


def write(folder: Path, *, seed: int = SEED) -> None:
    """Write `audio/*.ogg` and `manifest.csv` under `folder`."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rows, file_format = [], {"format": "OGG", "subtype": "OPUS", "compression_level": 0.93}
    for clip in plan(seed=seed):
        sound = clip.speak()
        soundfile.write(folder / clip.path, sound, RATE, **file_format)
        rows.append(clip.row(duration_s=len(sound) / RATE))
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False, lineterminator="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    print(f"{demo_speech.engine()}, seed {arguments.seed}")
    try:
        write(arguments.out, seed=arguments.seed)
    except OSError as problem:
        raise UserError(
            f"{arguments.out} cannot be written ({problem}); give another --out."
        ) from problem


if __name__ == "__main__":
    command_line(main)
