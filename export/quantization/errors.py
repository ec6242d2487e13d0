"""The error of networks that cannot be quantized."""

from edge.errors import FerEdgeError


class ConversionError(FerEdgeError):
    """The network cannot be converted to an int8 file with int8 input and output and fixed shapes."""

    exit_code = 11
