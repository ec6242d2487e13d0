"""``fer-edge doctor``: the checks of this device, and the probes that run in child processes."""
