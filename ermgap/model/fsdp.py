"""FSDP for the frozen decoder: each worker of a group keeps a shard of every layer's weights.

`train.parallel: fsdp` shards the layers with PyTorch's `fully_shard`; a layer's weights are
gathered when it runs, forward and backward, and released afterwards. The adapter, which is trained,
is small and whole on every worker and its gradients are summed as with `ddp`, so that the numbers
are the same. The audio tower, the embeddings and the head stay whole: of the 7B model, 6.5 of 8.4
billion weights are sharded.

Collectives are matched by their order: every worker must run every layer equally often, which
`step_pieces` and `ermgap.training.evaluation` ensure.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ermgap.distributed import World


def shard(model: nn.Module, world: World) -> None:
    """Shard the decoder layers of a Qwen2-Audio over the workers' devices, in place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for layer in model.model.language_model.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        # Our decoder computes a layer itself; called as the layer's forward, FSDP's hooks run.
        layer.forward = _forward
        layer.gathers = True


def through(layer: nn.Module, function: Callable, *inputs):
    """`function(*inputs)` while the layer's weights are gathered."""
    return layer(function, *inputs) if getattr(layer, "gathers", False) else function(*inputs)


def _forward(function: Callable, *inputs):
    return function(*inputs)


def step_pieces(batch: int, *, world: int, size: int | None) -> int:
    """Number of micro-batches into which every worker divides its share of a global batch."""
    share = -(-batch // world)
    return 1 if size is None else -(-share // size)
