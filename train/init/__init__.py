"""Where a network's first weights come from."""
