"""Synthesises the speech of the corpus `demo`: espeak-ng says a text, numpy adds emotional cues.

`ermgap.corpora.make_demo` calls `speak(text, voice, cues, seed)` for every clip; nothing here is
used when the corpus is loaded.
"""

from __future__ import annotations

import dataclasses
import io
import subprocess
from dataclasses import dataclass

import numpy as np
import soundfile

from ermgap.errors import UserError

RATE = 16000
LONGEST_S = 1.95
PLAIN_SPEED = 195  # espeak-ng's words a minute of a clip without cues
PLAIN_RMS = 0.06
EDGE = 320  # samples of silence at both ends, 20 ms


@dataclass(frozen=True)
class VoiceCues:
    """How a clip differs from the plain voice; all zero is the plain voice."""

    pitch: float = 0.0  # octaves
    range: float = 0.0  # octaves by which the intonation's range is multiplied
    rate: float = 0.0  # octaves of speaking rate
    gain: float = 0.0  # dB
    tilt: float = 0.0  # dB an octave above 500 Hz
    tremor: float = 0.0  # depth of amplitude modulation at 7 Hz, 0 to 1
    creak: float = 0.0  # the same at 30 Hz
    breath: float = 0.0  # noise that follows the envelope, relative to the voice
    glide: float = 0.0  # octaves by which the end rises
    swell: float = 0.0  # dB from the first sample to the last
    drive: float = 0.0  # saturation, 0 is none


def speak(text: str, *, voice: str, cues: VoiceCues, seed: int) -> np.ndarray:
    """The text as float32 [n], mono at 16 kHz, at most 1.95 s: a longer clip is spoken faster.

    `voice` is espeak-ng's, such as `de+f3`; `seed` draws the breath.
    Raises UserError when espeak-ng is absent or refuses the voice.
    """
    sound = _espeak(text, voice=voice, cues=cues)
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    sound = _glide(sound[loud[0] : loud[-1] + 1], octaves=cues.glide)
    sound = _tilt(sound, db_per_octave=cues.tilt)
    if len(sound) + 2 * EDGE > LONGEST_S * RATE:
        faster = dataclasses.replace(cues, rate=cues.rate + 0.1)
        return speak(text, voice=voice, cues=faster, seed=seed)
    sound = _shape(sound, cues=cues, seed=seed)
    sound = sound * PLAIN_RMS * 10 ** (cues.gain / 20) / np.sqrt(np.mean(sound**2))
    return np.pad(np.clip(sound, -0.99, 0.99), EDGE).astype(np.float32)


def engine() -> str:
    """The name and version of espeak-ng; raises UserError where it is absent."""
    return _run(["--version"]).decode().split("Data at")[0].strip()


def _espeak(text: str, *, voice: str, cues: VoiceCues) -> np.ndarray:
    pitch = int(np.clip(round(50 + 50 * cues.pitch), 0, 99))  # 50 steps are about an octave
    speed = round(PLAIN_SPEED * 2**cues.rate)
    marked = f'<prosody range="{round(100 * 2**cues.range)}%">{text}</prosody>'
    wave = _run(["-v", voice, "-m", "-p", str(pitch), "-s", str(speed), "--stdout", marked])
    sound, rate = soundfile.read(io.BytesIO(wave))
    length = round(len(sound) * RATE / rate)  # resampled as a whole, through its spectrum
    return np.fft.irfft(np.fft.rfft(sound)[: length // 2 + 1], length) * (length / len(sound))


def _run(arguments: list[str]) -> bytes:
    try:
        run = subprocess.run(["espeak-ng", *arguments], capture_output=True, check=True)
    except FileNotFoundError as missing:
        raise UserError("espeak-ng is not on the PATH; install the package espeak-ng.") from missing
    except subprocess.CalledProcessError as failed:
        message = failed.stderr.decode(errors="replace").strip().replace("\n", " ")
        raise UserError(
            f"espeak-ng fails ({message}); install its voices and variants."
        ) from failed
    return run.stdout


def _glide(sound: np.ndarray, *, octaves: float) -> np.ndarray:
    """The sound, whose last 40 % is played faster and faster so that it rises (slower if < 0)."""
    position = np.linspace(0, 1, len(sound))
    speed = 2 ** (octaves * np.clip((position - 0.6) / 0.4, 0, 1))
    time = np.concatenate([[0], np.cumsum(1 / speed)[:-1]])
    return np.interp(np.arange(time[-1]), time, sound)


def _tilt(sound: np.ndarray, *, db_per_octave: float) -> np.ndarray:
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    octaves = np.log2(np.maximum(hertz, 500) / 500)
    return np.fft.irfft(np.fft.rfft(sound) * 10 ** (db_per_octave * octaves / 20), len(sound))


def _shape(sound: np.ndarray, *, cues: VoiceCues, seed: int) -> np.ndarray:
    """Breath, tremor, creak, swell and saturation."""
    envelope = np.convolve(np.abs(sound), np.ones(320) / 320, mode="same")
    noise = np.random.default_rng(seed).normal(size=len(sound))
    sound = sound + 3 * max(cues.breath, 0) * envelope * noise
    time = np.arange(len(sound)) / RATE
    for depth, hertz in ((cues.tremor, 7.0), (cues.creak, 30.0)):
        wave = 0.5 - 0.5 * np.cos(2 * np.pi * hertz * time)
        sound = sound * (1 - np.clip(depth, 0, 1) * wave)
    sound = sound * 10 ** (cues.swell * np.linspace(-0.5, 0.5, len(sound)) / 20)
    if cues.drive > 0:
        sound = np.tanh((1 + cues.drive) * sound / np.abs(sound).max())
    return sound
