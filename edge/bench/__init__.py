"""``fer-edge bench``: cost and detection recall, compared with a baseline on clips whose ground truth is known."""
