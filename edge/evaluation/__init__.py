"""Labelled faces, figures of a classifier, and how low an accuracy chance still explains."""
