"""The default sampler: trials with their objectives go in, the next hyperparameters come out.

A Gaussian process (`surrogate`) over encoded hyperparameters (`encoding`), and the hypervolume that
a proposal may add (`improvement`).
"""
