"""Puts the rooms together: what ``fer-edge run`` and ``fer-edge replay`` do."""
