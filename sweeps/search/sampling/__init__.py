"""The default sampler: hyperparameters and what they reached go in, the next proposal comes out.

A Gaussian process (`surrogate`) over encoded hyperparameters (`encoding`), and the hypervolume that
a proposal may add (`improvement`).
"""
