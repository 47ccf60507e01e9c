"""Outputs of the frozen audio tower: clips go in, arrays mapped from disk come out, computed once.

`audio_tower` runs the tower, `store` finds or computes the features of a split, `shards` is the
folder that many processes write and read at once.
"""
