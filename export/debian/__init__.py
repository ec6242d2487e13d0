"""Debian packages of the device side, one for each Debian release, from the wheelhouse."""
