"""LoRA adapters of a frozen decoder, one or several in the same pass.

An `Adapter` is what one configuration trains: the factors A [r, in] and B [out, r] of each targeted
linear module and, if wanted, a copy of the projector. A linear module then gives

    W x + b + alpha / r * B A dropout(x)          (LoRA, arXiv 2106.09685, as peft defines it)

`StackedAdapters` holds K adapters for one forward pass: factors with a leading axis of K, padded
with zeros to the largest r, so that the frozen product runs once over K x batch rows and the
low-rank products are batched over K. Each adapter keeps its own r, alpha, dropout rate and random
numbers: with K = 1 the arithmetic is that of the adapter alone.

Unlike in peft, modules that share their input (q, k, v) share its dropout mask, and in a bfloat16
model the low-rank products are bfloat16 too, of factors kept in float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ermgap import config
from ermgap.model.layer_operations import keep_mask
from ermgap.records import file_names

PROJECTOR = "model.multi_modal_projector"
BASE_CLASS = "Qwen2AudioForConditionalGeneration"  # by which peft's AutoPeftModel loads the base


class Adapter:
    """The parameters that one configuration trains.

    Args:
        settings: rank, alpha, dropout, and whether the projector is trained.
        modules: the targeted linear modules by their path in the model, in a fixed order.
        projector: the pretrained projector, a linear module; it is copied.
        seed: of A's values; the same on every device and worker.

    Attributes:
        parameters: by peft's name without its prefix; float32, or float64 in a float64 model, since
            an optimiser step of 1e-5 vanishes in bfloat16's 8 bits.
        generator: draws the dropout masks, on the model's device.
    """

    def __init__(
        self,
        settings: config.Adapter,
        modules: dict[str, nn.Linear],
        projector: nn.Linear,
        *,
        seed: int,
    ) -> None:
        self.settings = settings
        self.paths = list(modules)
        weight = projector.weight
        self.dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        self.generator = torch.Generator(weight.device).manual_seed(seed)
        random = torch.Generator().manual_seed(seed)
        self.parameters: dict[str, nn.Parameter] = {}
        for path, module in modules.items():
            # peft's initialisation: kaiming_uniform_(a = sqrt(5)), which is U(-1, 1) / sqrt(in).
            first = torch.rand(settings.r, module.in_features, generator=random, dtype=self.dtype)
            first = (2 * first - 1) / math.sqrt(module.in_features)
            self._add(f"{path}.lora_A.weight", first.to(weight.device))
            second = torch.zeros(module.out_features, settings.r, dtype=self.dtype)
            self._add(f"{path}.lora_B.weight", second.to(weight.device))
        if settings.train_projector:
            for name, value in projector.state_dict().items():
                self._add(f"{PROJECTOR}.linear.{name}", value.to(self.dtype, copy=True))

    @property
    def scaling(self) -> float:
        """alpha / r."""
        return self.alpha / self.settings.r

    @property
    def alpha(self) -> int:
        """LoRA's alpha; 2 r unless it is set."""
        return self.settings.alpha or 2 * self.settings.r

    def _add(self, name: str, value: Tensor) -> None:
        self.parameters[name] = nn.Parameter(value.contiguous())

    def save(self, folder: Path, *, base: str, revision: str | None = None) -> None:
        """Write the adapter into a folder, in peft's format.

        Args:
            folder: created if absent.
            base: name or folder of the model that the adapter belongs to.
            revision: of the base on the hub; None: the newest.
        """
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"base_model.model.{name}": parameter.detach().cpu()
            for name, parameter in self.parameters.items()
        }
        save_file(tensors, folder / file_names.ADAPTER_WEIGHTS, metadata={"format": "pt"})
        settings = self.settings
        metadata = {
            "peft_type": "LORA",
            "task_type": None,  # peft has no task for this kind of model
            "auto_mapping": {"base_model_class": BASE_CLASS, "parent_library": "transformers"},
            "base_model_name_or_path": base,
            "revision": revision,
            "inference_mode": True,
            "r": settings.r,
            "lora_alpha": self.alpha,
            "lora_dropout": settings.dropout,
            "bias": "none",
            # Of the decoder alone: the audio tower has q_proj, k_proj and v_proj, too.
            "target_modules": rf".*language_model\.layers\..*\.({'|'.join(settings.targets)})",
            "modules_to_save": [PROJECTOR.split(".")[-1]] if settings.train_projector else None,
        }
        (folder / "adapter_config.json").write_text(
            json.dumps(metadata, indent=2) + "\n", encoding="utf-8"
        )


class StackedAdapters:
    """Several adapters side by side for one pass.

    Attributes:
        first, second: by module path, A [K, r, in] and B [K, out, r] in `dtype`; B carries alpha/r
            and, in training, 1 / (1 - dropout).
        size: K.
    """

    def __init__(self, adapters: Sequence[Adapter], *, dtype: torch.dtype, training: bool) -> None:
        self.adapters, self.size, self.dtype = adapters, len(adapters), dtype
        self.rates = [adapter.settings.dropout if training else 0.0 for adapter in adapters]
        rank = max(adapter.settings.r for adapter in adapters)
        self.first, self.second = {}, {}
        for path in adapters[0].paths:
            firsts, seconds = [], []
            for adapter, rate in zip(adapters, self.rates, strict=True):
                spare = rank - adapter.settings.r
                factor = adapter.scaling / (1 - rate)
                firsts.append(
                    _padded(adapter.parameters[f"{path}.lora_A.weight"], spare, rows=True)
                )
                second = adapter.parameters[f"{path}.lora_B.weight"] * factor
                seconds.append(_padded(second, spare, rows=False))
            self.first[path], self.second[path] = _stacked(firsts, dtype), _stacked(seconds, dtype)

    def mask(self, tokens: int, width: int) -> Tensor | None:
        """Dropout's mask of an input, bool [K, tokens, width]; None where no rate is above 0."""
        if not any(self.rates):
            return None
        device = self.adapters[0].generator.device
        masks = [
            keep_mask((tokens, width), rate, adapter.generator)
            if rate
            else torch.ones(tokens, width, dtype=torch.bool, device=device)
            for adapter, rate in zip(self.adapters, self.rates, strict=True)
        ]
        return torch.stack(masks) if len(masks) > 1 else masks[0].unsqueeze(0)

    def project(self, audio: Tensor, projector: nn.Linear) -> Tensor:
        """Features [N, d_audio] through each adapter's projector: [K, N, hidden]."""
        names = [f"{PROJECTOR}.linear.{name}" for name in ("weight", "bias")]
        trained = [adapter for adapter in self.adapters if names[0] in adapter.parameters]
        if not trained:
            return projector(audio).unsqueeze(0).expand(self.size, -1, -1)
        weight, bias = (
            _stacked([adapter.parameters[name] for adapter in trained], self.dtype)
            for name in names
        )
        if self.size == 1:
            return F.linear(audio, weight[0], bias[0]).unsqueeze(0)
        repeated = audio.unsqueeze(0).expand(self.size, -1, -1)
        return torch.baddbmm(bias.unsqueeze(1), repeated, weight.transpose(1, 2))


def adapted(
    stack: StackedAdapters | None, modules: dict[str, nn.Linear], x: Tensor, dropped: Tensor | None
) -> list[Tensor]:
    """Linear modules that share the input x [K, N, in], each with its adapters: [K, N, out] each.

    Args:
        stack: None for the pretrained modules alone.
        modules: by path.
        dropped: x with dropout's mask applied (its factor is in the stack); None without dropout.
    """
    outputs = [F.linear(x, module.weight, module.bias) for module in modules.values()]
    targeted = [i for i, path in enumerate(modules) if stack is not None and path in stack.first]
    if not targeted:
        return outputs
    paths = list(modules)
    down = [stack.first[paths[i]] for i in targeted]
    down = torch.cat(down, 1) if len(down) > 1 else down[0]
    low = torch.bmm(x if dropped is None else dropped, down.transpose(1, 2))
    for i, part in zip(targeted, low.chunk(len(targeted), -1), strict=True):
        outputs[i] = torch.baddbmm(outputs[i], part, stack.second[paths[i]].transpose(1, 2))
    return outputs


def _padded(factor: Tensor, spare: int, *, rows: bool) -> Tensor:
    if not spare:
        return factor
    return F.pad(factor, (0, 0, 0, spare) if rows else (0, spare))


def _stacked(values: list[Tensor], dtype: torch.dtype) -> Tensor:
    whole = torch.stack(values) if len(values) > 1 else values[0].unsqueeze(0)
    return whole.to(dtype)
