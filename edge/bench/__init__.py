"""``fer-edge bench``: cost and detection recall against clips whose ground truth is known."""
