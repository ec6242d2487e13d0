"""Make a bundle: of a training run, or of a network that was trained elsewhere."""
