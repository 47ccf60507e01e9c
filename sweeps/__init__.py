"""The commands: a sweep, one configuration, a benchmark, features beforehand; and the presets."""
