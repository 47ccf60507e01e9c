"""What is run: the sweep, one configuration, and the presets."""
