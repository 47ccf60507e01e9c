"""The collective operations that training needs, over torch.distributed or in a single process.

Without a process group every operation returns its input, so the training loop has one code path.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class World:
    """The rank and device of this process, and the number of processes of the run."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls) -> World:
        """That of the process group, if there is one; on this worker's GPU, if it has one."""
        grouped = dist.is_available() and dist.is_initialized()
        rank, size = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
        if torch.cuda.is_available():
            return cls(rank, size, torch.device("cuda", torch.cuda.current_device()))
        return cls(rank, size)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The tensor, summed over all workers in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set on some worker."""
        counts = torch.tensor([float(flag) for flag in flags], device=self.device)
        return [count > 0 for count in self.all_reduce(counts).tolist()]

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, which must be picklable, on every worker."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def all_reduce_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Sum gradients over workers, one flat all-reduce per dtype; a missing one counts as zero.

        The sum, and not DDP's mean: the utterance weights already carry the global normalisation.
        """
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        # No set: its order may differ between processes, and collectives pair up by order.
        for dtype in dict.fromkeys(p.dtype for p in parameters):
            gradients = [p.grad for p in parameters if p.dtype == dtype]
            flat = self.all_reduce(torch.cat([g.flatten() for g in gradients]))
            sums = flat.split([g.numel() for g in gradients])
            torch._foreach_copy_(
                gradients, [s.view_as(g) for s, g in zip(sums, gradients, strict=True)]
            )
