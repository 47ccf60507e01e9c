"""Outputs of the frozen audio tower: clips go in, arrays mapped from disk come out, computed once.

`audio_tower` runs the tower, `store` finds or computes what a split needs, `shards` is the folder
that many processes fill and read at once.
"""
