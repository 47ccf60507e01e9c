"""The search: ended trials go in, the hyperparameters of the next trial come out.

`searcher` is what Ray Tune asks; `study` holds the trials in Optuna, `outcome` says how they ended.
`space` has the hyperparameters, `sampling` proposes them, `shares` divides the trials among the
losses, `order` makes a sweep deterministic, `stopping` stops trials early, `warm_start` has earlier
sweeps to learn from, `proposals` has named points, `journal` a copy of the sweep for
optuna-dashboard. Nothing here knows a model or a scheduler.
"""
