"""A few training steps of ms-swift on the clips of bench_step.py; run by `.venv-peers/bin/python`.

    .venv-peers/bin/python tests/benchmarks/peer_swift.py --folder DIR --batch 16 --threads 2

DIR holds clips.json: `{"model": folder, "clips": [{"path", "emotion"}, ...]}`. ms-swift 4.6.0 wants
transformers under 5.20 and peft under 0.21, so it has an environment of its own (`make peers`). It
expands the audio placeholder inside the model (the legacy path of transformers), which reads
`ignore_index` from config.json: the 7B model's has it, a copy of `small` gets it here. Its own chat
prompt is longer than ours by about twenty tokens. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS = 6
TARGETS = r".*language_model\.layers\..*\.(q_proj|k_proj|v_proj|o_proj)"
OPTIONS = {
    "model_type": "qwen2_audio",
    "torch_dtype": "float32",
    "attn_impl": "sdpa",
    "tuner_type": "lora",
    "lora_rank": 8,
    "lora_alpha": 16,
    "target_regex": TARGETS,
    "modules_to_save": "multi_modal_projector",
    "gradient_checkpointing": "false",
    "gradient_accumulation_steps": 1,
    "split_dataset_ratio": 0,
    "save_strategy": "no",
    "logging_steps": 1,
    "report_to": "none",
    "dataloader_pin_memory": "false",
}


def main() -> None:
    """Train a few steps and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    told = json.loads((given.folder / "clips.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(train(told, given, Path(folder))))


def train(told: dict, given: argparse.Namespace, work: Path) -> dict:
    """Run `swift sft` and read its log; `error` holds the end of its output if it fails."""
    model = shutil.copytree(told["model"], work / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"ignore_index": -100}))
    (work / "train.jsonl").write_text("".join(json.dumps(row(c)) + "\n" for c in told["clips"]))
    options = OPTIONS | {
        "model": model, "dataset": work / "train.jsonl", "output_dir": work / "out",
        "per_device_train_batch_size": given.batch, "max_steps": given.steps,
    }  # fmt: skip
    command = [str(Path(sys.executable).with_name("swift")), "sft"]
    command += [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(given.threads), "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    packages = ("ms-swift", "torch", "transformers", "peft")
    result = {"versions": {name: importlib.metadata.version(name) for name in packages}}
    logs = sorted((work / "out").rglob("logging.jsonl"))
    lines = [json.loads(line) for line in logs[0].read_text().splitlines()] if logs else []
    whole = [line for line in lines if "train_runtime" in line]
    if not whole:
        return result | {"error": (ended.stderr or ended.stdout).strip()[-800:]}
    seconds = float(whole[0]["train_runtime"])
    return result | {
        "steps": given.steps,
        "batch": given.batch,
        "seconds": seconds,
        "train_utterances_per_second": given.steps * given.batch / seconds,
        "losses": [float(line["loss"]) for line in lines if "loss" in line],
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3,
    }


def row(clip: dict) -> dict:
    """A conversation in ms-swift's form."""
    return {
        "messages": [
            {"role": "user", "content": "<audio>\nEmotion?"},
            {"role": "assistant", "content": clip["emotion"]},
        ],
        "audios": [clip["path"]],
    }


if __name__ == "__main__":
    main()
