"""Labelled faces, a classifier's figures on them, and the accuracy that is accepted."""
