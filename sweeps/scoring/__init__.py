"""Systems judged on held-out utterances: the paper's table, and a front confirmed over seeds."""
