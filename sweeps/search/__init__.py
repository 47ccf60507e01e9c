"""What to try next: ended trials go in, hyperparameters of a new one come out.

Optuna holds the trials (`searcher`, `study`), `sampling` proposes, `space` has the hyperparameters,
`shares` deals out the losses, `stopping` ends what is behind, `warm_start` has the earlier sweeps
to learn from. Nothing here knows a model or a scheduler.
"""
