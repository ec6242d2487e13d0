"""Measurements of finished bundles: comparison, crop margin, event tuning."""
