"""The speech language model: utterances go in, losses and scores of the labels come out.

`qwen2_audio` loads a backbone (`backbones/`) and runs it over packed batches: features of the
frozen audio tower (`features/`), the prompt, the frozen decoder and its LoRA adapters.
"""
