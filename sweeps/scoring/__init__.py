"""Systems judged on held-out utterances: the benchmark's table, and a front confirmed over seeds."""
