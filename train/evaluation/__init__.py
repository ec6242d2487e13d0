"""Measuring runs, bundles and ensembles on labelled faces."""
