"""Makes the embedded corpus `demo`: synthetic clips with a gender gap planted in one language.

    python -m ermgap.corpora.make_demo [--out FOLDER] [--seed N]

Needs espeak-ng on the PATH. The plan of clips (voice, words, strength of every cue) depends on the
seed alone; the sound depends on the version of espeak-ng too. An emotion is heard in the prosody
(pitch, range, rate, loudness, brightness, tremor, breath, contour) and in half of the clips in the
words. In the planted cell (`demo.PLANTED`) the cues are weaker and partly those of another emotion,
and the words say less: a model that follows the majority reads them wrongly, while one that gives
this cell weight can learn them.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ermgap.corpora.demo import EMOTIONS, FIELDS, FOLDER, GENDERS, LANGUAGES, PLANTED, RATE
from ermgap.errors import UserError

SEED = 2
TRAIN_PER_EMOTION = 5
DEV_PER_CELL = 80
MAX_S = 1.95
VOICES = {  # espeak-ng variants; a variant is in train or in dev, in all languages alike
    ("female", "train"): ("f1", "f3", "Annie"),
    ("female", "dev"): ("f2", "f4", "f5", "linda"),
    ("male", "train"): ("m1", "m3", "m7"),
    ("male", "dev"): ("m2", "m4", "m6", "m8"),
}
WORDS = 0.6  # share of clips whose words carry the emotion
WEAK_WORDS = 0.2
WEAK_OWN = 0.35  # size of the emotion's own cues in the planted cell
WEAK_OTHER = 0.7  # size of the cues that it borrows there from another emotion
BORROWED = {
    "anger": "joy",
    "joy": "anger",
    "fear": "surprise",
    "surprise": "fear",
    "sadness": "disgust",
    "disgust": "sadness",
    "neutral": "neutral",
}
SPREAD = 0.2  # each cue of a clip is 1 +- this much of its size
WEAK_SPREAD = 0.1


@dataclass(frozen=True)
class Cues:
    """How far a clip is from the plain voice; all zero is the plain voice."""

    pitch: float = 0.0  # octaves
    range: float = 0.0  # octaves by which the intonation range is multiplied
    rate: float = 0.0  # octaves of speaking rate
    gain: float = 0.0  # dB
    tilt: float = 0.0  # dB an octave above 500 Hz
    tremor: float = 0.0  # depth of amplitude modulation at 7 Hz, 0 to 1
    creak: float = 0.0  # the same at 30 Hz
    breath: float = 0.0  # noise under the envelope, relative to the voice
    glide: float = 0.0  # octaves by which the last third rises
    swell: float = 0.0  # dB from the first sample to the last
    drive: float = 0.0  # saturation, 0 = none


CUES = {
    "anger": Cues(pitch=0.15, range=0.8, rate=0.3, gain=6, tilt=4, drive=4, swell=-8),
    "disgust": Cues(pitch=-0.35, range=-0.5, rate=-0.25, creak=1.0, tilt=-1, swell=-5),
    "fear": Cues(pitch=0.5, range=-0.6, rate=0.4, gain=-4, tremor=1.0, breath=0.35),
    "joy": Cues(pitch=0.5, range=1.2, rate=0.1, gain=2, tilt=1.5, glide=-0.2),
    "neutral": Cues(),
    "sadness": Cues(pitch=-0.2, range=-1.2, rate=-0.4, gain=-9, tilt=-5, breath=0.2, glide=-0.4),
    "surprise": Cues(pitch=0.25, range=0.6, rate=-0.1, gain=2, glide=1.0, swell=10),
}


@dataclass(frozen=True)
class Clip:
    """One planned clip: a row of the manifest without its duration, and how it is spoken."""

    language: str
    gender: str
    emotion: str
    variant: str
    split: str
    number: int
    text: str
    expression: str
    cues: Cues
    seed: int

    @property
    def voice(self) -> str:
        return f"{self.language}_{self.variant.lower()}"

    @property
    def path(self) -> str:
        return f"audio/{self.voice}_{self.emotion}_{self.number:03d}.ogg"


def plan(*, seed: int = SEED) -> list[Clip]:
    """All clips of the corpus in the order of the manifest; the same seed gives the same plan."""
    rng = np.random.default_rng(seed)
    phrases = read_phrases()
    clips = []
    for language in LANGUAGES:
        for gender in GENDERS:
            for split in ("train", "dev"):
                counts = _counts(language, split)
                for emotion in EMOTIONS:
                    for number in range(counts[emotion]):
                        cell = (language, gender, split, emotion)
                        clips.append(_clip(cell, number=number, phrases=phrases, rng=rng))
    return clips


def read_phrases() -> dict[tuple[str, str], list[str]]:
    """The phrases by (language, emotion); the emotion `any` marks words that carry none."""
    phrases: dict[tuple[str, str], list[str]] = {}
    with open(FOLDER / "phrases.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            phrases.setdefault((row["language"], row["emotion"]), []).append(row["text"])
    return phrases


def _counts(language: str, split: str) -> dict[str, int]:
    """Clips per emotion: five in train; 11 in dev, 12 for three that differ by language."""
    if split == "train":
        return dict.fromkeys(EMOTIONS, TRAIN_PER_EMOTION)
    least, rest = divmod(DEV_PER_CELL, len(EMOTIONS))
    first = LANGUAGES.index(language) * rest
    extra = {EMOTIONS[(first + k) % len(EMOTIONS)] for k in range(rest)}
    return {emotion: least + (emotion in extra) for emotion in EMOTIONS}


def _clip(cell, *, number: int, phrases, rng: np.random.Generator) -> Clip:
    language, gender, split, emotion = cell
    weak = (language, gender) == PLANTED
    voices = VOICES[gender, split]
    variant = voices[(number + EMOTIONS.index(emotion)) % len(voices)]
    said = emotion if rng.random() < (WEAK_WORDS if weak else WORDS) else "any"
    pool = phrases[language, said]
    return Clip(
        *(language, gender, emotion, variant, split, number),
        text=pool[rng.integers(len(pool))],
        expression="weak" if weak else "full",
        cues=_cues(emotion, weak=weak, rng=rng),
        seed=int(rng.integers(2**31)),
    )


def _cues(emotion: str, *, weak: bool, rng: np.random.Generator) -> Cues:
    """The clip's cues: the emotion's own (and in the planted cell another's), each varied."""
    own, other = CUES[emotion], CUES[BORROWED[emotion]]
    spread = WEAK_SPREAD if weak else SPREAD
    values = {}
    for name in Cues.__dataclass_fields__:
        value = getattr(own, name)
        if weak:
            value = WEAK_OWN * value + WEAK_OTHER * getattr(other, name)
        values[name] = value * (1 + spread * rng.uniform(-1, 1))
    values["pitch"] += rng.normal(scale=0.05)
    values["rate"] += rng.normal(scale=0.05)
    return Cues(**values)


def speak(clip: Clip) -> np.ndarray:
    """The clip as float32 [n], mono at 16 kHz, at most two seconds."""
    rng = np.random.default_rng(clip.seed)
    cues = clip.cues
    sound = _trim(_espeak(clip))
    sound = _glide(sound, octaves=cues.glide)
    sound = _tilt(sound, db_per_octave=cues.tilt)
    time = np.arange(len(sound)) / RATE
    envelope = np.convolve(np.abs(sound), np.ones(320) / 320, mode="same")
    sound = sound + max(cues.breath, 0) * 3 * envelope * rng.normal(size=len(sound))
    for depth, hertz in ((cues.tremor, 7.0), (cues.creak, 30.0)):
        wave = 0.5 - 0.5 * np.cos(2 * np.pi * hertz * time)
        sound = sound * (1 - np.clip(depth, 0, 1) * wave)
    sound = sound * 10 ** (cues.swell * np.linspace(-0.5, 0.5, len(sound)) / 20)
    if cues.drive > 0:
        sound = np.tanh((1 + cues.drive) * sound / np.abs(sound).max())
    level = 0.06 * 10 ** (cues.gain / 20)
    sound = sound * level / np.sqrt(np.mean(sound**2))
    sound = np.clip(sound, -0.99, 0.99)
    return np.pad(sound, 320).astype(np.float32)


def _espeak(clip: Clip) -> np.ndarray:
    pitch = int(np.clip(round(50 + 50 * clip.cues.pitch), 0, 99))
    speed = int(round(195 * 2**clip.cues.rate))
    percent = int(round(100 * 2**clip.cues.range))
    text = f'<prosody range="{percent}%">{clip.text}</prosody>'
    command = ["espeak-ng", "-v", f"{clip.language}+{clip.variant}", "-m", "-p", str(pitch)]
    done = subprocess.run(
        [*command, "-s", str(speed), "--stdout", text], capture_output=True, check=True
    )
    sound, rate = soundfile.read(io.BytesIO(done.stdout))
    return _resample(sound, length=round(len(sound) * RATE / rate))


def _resample(sound: np.ndarray, *, length: int) -> np.ndarray:
    """Band-limited resampling of the whole clip through its spectrum."""
    return np.fft.irfft(np.fft.rfft(sound)[: length // 2 + 1], length) * (length / len(sound))


def _trim(sound: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    return sound[loud[0] : loud[-1] + 1]


def _glide(sound: np.ndarray, *, octaves: float) -> np.ndarray:
    """Play the last 40 % faster and faster (slower for a negative glide), so that it rises."""
    place = np.linspace(0, 1, len(sound))
    speed = 2 ** (octaves * np.clip((place - 0.6) / 0.4, 0, 1))
    reach = np.concatenate([[0], np.cumsum(1 / speed)[:-1]])
    return np.interp(np.arange(reach[-1]), reach, sound)


def _tilt(sound: np.ndarray, *, db_per_octave: float) -> np.ndarray:
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    octaves = np.log2(np.maximum(hertz, 500) / 500)
    return np.fft.irfft(spectrum * 10 ** (db_per_octave * octaves / 20), len(sound))


def write(folder: Path, *, seed: int = SEED) -> None:
    """Write `audio/*.ogg` and `manifest.csv` under `folder`."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, FIELDS, lineterminator="\n")
        rows.writeheader()
        for clip in plan(seed=seed):
            sound = speak(clip)
            soundfile.write(
                *(folder / clip.path, sound, RATE),
                format="OGG",
                subtype="OPUS",
                compression_level=0.93,
            )
            rows.writerow(row(clip, duration_s=len(sound) / RATE))


def row(clip: Clip, *, duration_s: float) -> dict[str, str]:
    """The clip's row of the manifest."""
    return dict(
        path=clip.path,
        language=clip.language,
        gender=clip.gender,
        emotion=clip.emotion,
        speaker=f"demo_{clip.voice}",
        split=clip.split,
        transcript=clip.text,
        duration_s=f"{duration_s:.4f}",
        expression=clip.expression,
        synthetic="true",
    )


def engine() -> str:
    """The version line of espeak-ng; raises UserError where it is absent."""
    try:
        done = subprocess.run(
            ["espeak-ng", "--version"], capture_output=True, text=True, check=True
        )
    except FileNotFoundError as missing:
        raise UserError("espeak-ng is not on the PATH; install the package espeak-ng.") from missing
    return done.stdout.split("Data at")[0].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    print(f"{engine()}, seed {arguments.seed}")
    write(arguments.out, seed=arguments.seed)


if __name__ == "__main__":
    main()
