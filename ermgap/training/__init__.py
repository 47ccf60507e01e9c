"""One trial from its first step to its last row, under plain torch.distributed.

Hyperparameters, a backbone and utterances go in; each epoch writes predictions, adapter and
checkpoint, and reports the row that commits them. `trainer` is the loop; `ray_worker`, the one file
of this package that imports Ray, runs it inside a worker group.
"""
