"""What is looked at: the Pareto front of a sweep, its error bars, choices, figures and report.

    python -m analysis results/demo
It reads `ermgap.records` and `ermgap.metrics` only, so it needs neither torch nor Ray, and it works
while the sweep still runs.
"""
