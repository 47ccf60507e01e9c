"""The speech language model: utterances go in, their losses and the labels' logits come out.

`qwen2_audio` loads a backbone (`backbones/`) and runs it over packed batches: features of the
frozen audio tower (`features/`), the prompt, the frozen decoder and its LoRA adapters.
"""
