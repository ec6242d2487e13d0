"""``fer-edge doctor`` and the probes that it runs in child processes."""
