"""From a float network to int8 files that agree with it."""
