"""A sweep from its parsed options to its report, for the commands that run one."""
