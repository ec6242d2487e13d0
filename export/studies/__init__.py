"""Measurements of finished bundles: comparison, robustness, crop margin, event tuning."""
