"""``fer-edge`` on the virtual camera."""

import sys

import shim  # noqa: F401  before picamera2

from edge.cli.main import main

sys.exit(main())
