"""Features at the cost of a clip's own length equal those of the whole padded window."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import Qwen2AudioEncoderConfig, WhisperFeatureExtractor
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from ermgap.errors import UserError
from ermgap.model.backbones import small_from_wheels
from ermgap.model.features import audio_tower

RATE, HOP = 16000, 160
SHORT = (480, 481, 640, 641, 801, 1601, 16001, 31999, 32000)  # 3 frames; odd and even counts


def _random_tower() -> tuple[Qwen2AudioEncoderConfig, dict]:
    config = Qwen2AudioEncoderConfig(
        d_model=32,
        num_mel_bins=80,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        initializer_range=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = Qwen2AudioEncoder(config).state_dict()
        state["embed_positions.weight"] = 0.1 * torch.randn(1500, 32)
    return config, state


def _whispers_tower() -> tuple[Qwen2AudioEncoderConfig, dict]:
    try:
        arrays = small_from_wheels.whisper_encoder()
    except UserError as problem:
        pytest.skip(str(problem))
    wide, mel_bins, _ = arrays["conv1.weight"].shape
    config = Qwen2AudioEncoderConfig(
        d_model=wide,
        num_mel_bins=mel_bins,
        encoder_layers=4,
        encoder_attention_heads=wide // 64,
        encoder_ffn_dim=4 * wide,
    )
    state = {name: torch.from_numpy(np.array(array)).float() for name, array in arrays.items()}
    return config, state


@pytest.fixture(scope="module", params=["random-4", "random-30", "whisper-4", "whisper-30"])
def heard(request) -> tuple[Qwen2AudioEncoder, WhisperFeatureExtractor, int]:
    """A tower in float32, its feature extractor and its window in seconds."""
    kind, window_s = request.param.split("-")
    return _made(kind, int(window_s))


def _made(kind: str, window_s: int):
    config, state = _random_tower() if kind == "random" else _whispers_tower()
    config.max_source_positions = 50 * window_s
    config._attn_implementation = "sdpa"
    encoder = Qwen2AudioEncoder(config)
    positions = state["embed_positions.weight"][: 50 * window_s]
    encoder.load_state_dict(state | {"embed_positions.weight": positions})
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=window_s)
    return encoder.eval().requires_grad_(False), extractor, window_s


def _lengths(window_s: int) -> list[int]:
    end = window_s * RATE
    return [*SHORT, end - 3 * HOP - 1, end - HOP - 1, end - HOP, end - 1, end]


def _sound(length: int, *, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=length)).astype(np.float32)


def _whole(extractor, samples: np.ndarray):
    """Log-mel of the whole window and its mask, by the extractor alone."""
    told = {"padding": "max_length", "return_attention_mask": True, "return_tensors": "pt"}
    return extractor([samples], sampling_rate=RATE, **told)


def _reference(encoder, extractor, samples: np.ndarray) -> torch.Tensor:
    """transformers' own forward over the whole window, cut to the valid rows."""
    given = _whole(extractor, samples)
    output, valid = audio_tower.tower_output(
        encoder, given["input_features"], given["attention_mask"]
    )
    return output[0, : int(valid[0])]


def _ours(encoder, extractor, samples: np.ndarray) -> torch.Tensor:
    mel, count = audio_tower.log_mel(extractor, samples)
    return audio_tower.encode(encoder, mel[None], [count])[0]


def _error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    assert ours.shape == reference.shape and len(reference) > 0
    return float((ours - reference).abs().max() / reference.abs().max())


def test_in_float64_they_equal_the_whole_window(heard):
    encoder, extractor, window_s = heard
    exact, lengths = copy.deepcopy(encoder).double(), _lengths(window_s)
    if encoder.config.d_model > 32 and window_s == 30:  # three seconds each
        lengths = [801, 16001, 47000, window_s * RATE - 3 * HOP - 1]
    for length in lengths:
        samples = _sound(length)
        # The same log-mel for both: some CPUs round it by the number of frames (next test but one).
        mel, count = audio_tower.log_mel(extractor, samples)
        mel = _whole(extractor, samples)["input_features"][:, :, : mel.shape[1]]
        ours = audio_tower.encode(exact, mel, [count])[0]
        error = _error(ours, _reference(exact, extractor, samples))
        assert error < 1e-9, f"{length} samples: {error:.1e}"


def test_in_float32_they_differ_by_rounding(heard):
    encoder, extractor, window_s = heard
    for length in (481, 16001, window_s * RATE - HOP - 1):
        samples = _sound(length)
        ours, reference = (
            _ours(encoder, extractor, samples),
            _reference(encoder, extractor, samples),
        )
        assert _error(ours, reference) < 5e-5


def _spike(length: int) -> np.ndarray:
    """Silence but for the last sample: all that is heard lies in the frames at its end."""
    return np.eye(1, length, length - 1, dtype=np.float32)[0]


def _whisper_quiet(length: int) -> np.ndarray:
    return 1e-7 * _sound(length)


@pytest.mark.parametrize("window_s", [4, 30])
@pytest.mark.parametrize("sound", [_sound, _spike, _whisper_quiet])
def test_the_log_mel_that_is_used_is_the_whole_windows_to_float32_s_last_bits(window_s, sound):
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=window_s)
    for length in (1, 159, 160, 161, *_lengths(window_s), window_s * RATE + 999):
        mel, count = audio_tower.log_mel(extractor, sound(length))
        given = _whole(extractor, sound(length))
        frames = int(given["attention_mask"].sum())
        assert count == (frames - 1) // 2 + 1
        whole = given["input_features"][0, :, : mel.shape[1]]
        # Intel: equal. AMD EPYC: up to 1.2e-7, a unit in the last place of values near 1.
        assert float((mel - whole).abs().max()) < 2.5e-7
        assert min(frames, 100 * window_s) <= mel.shape[1] <= frames + 2


def test_the_convolutions_see_all_frames_that_reach_a_valid_position():
    encoder, extractor, _ = _made("random", 4)
    for length in (4800, 4801):  # 30 and 31 frames
        given = _whole(extractor, _sound(length))["input_features"].requires_grad_()
        mel, count = audio_tower.log_mel(extractor, _sound(length))
        hidden = torch.nn.functional.gelu(encoder.conv1(given))
        encoder.conv2(hidden)[..., :count].sum().backward()
        seen = given.grad[0].abs().sum(0).nonzero().max()
        assert int(seen) + 1 == mel.shape[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_clips_of_a_padded_batch_equal_clips_alone(dtype):
    encoder, extractor, _ = _made("random", 4)
    encoder = encoder.to(getattr(torch, dtype))
    heard = [audio_tower.log_mel(extractor, _sound(length)) for length in (9000, 64000, 640, 31999)]
    padded = torch.zeros(len(heard), 80, max(mel.shape[1] for mel, _ in heard))
    for row, (mel, _) in zip(padded, heard, strict=True):
        row[:, : mel.shape[1]] = mel
    together = audio_tower.encode(encoder, padded, [count for _, count in heard])
    assert together.dtype == getattr(torch, dtype)
    for output, (mel, count) in zip(together, heard, strict=True):
        alone = audio_tower.encode(encoder, mel[None], [count])[0]
        assert _error(output[: count // 2].float(), alone.float()) < (
            1e-5 if dtype == "float32" else 5e-2
        )


# -- FeatureEncoder --------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path: Path) -> list[tuple]:
    made = []
    for i, length in enumerate((9000, 64000, 640, 31999, 16000, 70000, 12345)):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, _sound(length, seed=i), RATE)
        made.append((f"u{i}", str(path), 0.0, length / RATE))
    return made


def _extract(*, dtype: str = "float32", model: str = "float32"):
    encoder, extractor, window_s = _made("random", 4)
    encoder = encoder.to(getattr(torch, model))
    return audio_tower.FeatureEncoder(
        encoder, extractor, window_s=window_s, dtype=dtype, device="cpu"
    )


@pytest.fixture
def threads():
    """Sets torch's threads for a test, and sets them back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_features_depend_neither_on_neighbours_nor_on_threads_to_the_bit(clips, threads):
    extract, made = _extract(), {}
    for count in (1, 2, 3):
        threads(count)
        made[count] = list(extract(clips))
    threads(2)
    made["backwards"] = list(extract(clips[::-1]))[::-1]
    made["alone"] = [next(extract([clip])) for clip in clips]
    for arrays in made.values():
        assert all(map(np.array_equal, arrays, made[1]))


def test_each_clip_takes_one_thread_and_all_others_keep_theirs(clips, threads, monkeypatch):
    threads(2)
    seen, encode = [], audio_tower.encode

    def watched(*given):
        seen.append(torch.get_num_threads())
        return encode(*given)

    monkeypatch.setattr(audio_tower, "encode", watched)
    assert len(list(_extract()(clips))) == len(seen) == len(clips)
    with ThreadPoolExecutor(1) as pool:
        fresh = pool.submit(torch.get_num_threads).result()
    assert set(seen) == {1} and torch.get_num_threads() == fresh == 2


def test_they_are_what_the_whole_window_gives(clips):
    extract = _extract()
    for (_, path, *_), features in zip(clips, extract(clips), strict=True):
        samples = soundfile.read(path, dtype="float32")[0][: 4 * RATE]
        reference = _reference(extract.tower, extract.extractor, samples)
        assert _error(torch.from_numpy(features), reference) < 5e-5


def test_a_bfloat16_tower_on_a_cpu_gives_the_same_to_its_precision(clips):
    exact = list(_extract()(clips))
    half = list(_extract(model="bfloat16", dtype="bfloat16")(clips))
    for one, bits in zip(exact, half, strict=True):
        assert bits.dtype == np.uint16
        rough = torch.from_numpy(bits).view(torch.bfloat16).float()
        assert 0 < _error(rough, torch.from_numpy(one)) < 5e-2


def test_a_tower_that_trains_is_left_so_even_by_a_reader_who_stops(clips, threads):
    threads(2)
    extract = _extract()
    extract.tower.train()
    reader = extract(clips)
    next(reader)
    reader.close()
    assert extract.tower.training and torch.get_num_threads() == 2


def test_a_clip_without_a_frame_is_named_after_those_before_it(clips, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.full(300, 0.1), RATE)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    for name in ("short", "empty"):
        given = _extract()([*clips[:3], (name, str(tmp_path / f"{name}.wav"), 0.0, 1.0)])
        assert [len(next(given)) > 0 for _ in range(3)] == [True] * 3
        with pytest.raises(UserError, match=rf"{name}\.wav of utterance {name} is under 0\.03 s"):
            next(given)


def test_what_is_read_ahead_is_bounded_and_comes_in_order():
    begun, gate = [], threading.Event()

    def slow(item: int) -> int:
        begun.append(item)
        gate.wait(0.01 * (item % 3))
        return -item

    with ThreadPoolExecutor(2) as pool:
        results = audio_tower._ahead(pool, slow, range(20), depth=4)
        for taken in range(20):
            assert next(results) == -taken
            assert len(begun) <= taken + 5
        assert next(results, None) is None and sorted(begun) == list(range(20))
