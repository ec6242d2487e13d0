"""Drawn scenes and clips whose ground truth is exact."""
