"""Take frames with fer-edge's own source and leave in /tmp/work/out.npz what it saw, and what libcamera says."""

import sys
import time

import numpy as np
import shim  # noqa: F401  before picamera2
from libcamera import ColorSpace
from picamera2 import Picamera2

from edge.camera.sources import open_source
from edge.settings import CameraSettings

name, width, height, rotation, mirror = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5] == "mirror"
source = open_source(CameraSettings(source=name, size=(width, height), rotation=rotation, mirror=mirror))
frames = source.frames()
taken = [next(frames) for _ in range(12)]
time.sleep(0.5)
late = next(frames)
dropped = source.dropped
started = time.monotonic()
source.close()
closing = time.monotonic() - started

camera = Picamera2(int(name.partition(":")[2]))
stream = {"format": "YUV420", "size": (640, 480)}
camera.configure(
    camera.create_video_configuration(
        main=dict(stream), lores=dict(stream), colour_space=ColorSpace.Smpte170m(), display=None, encode=None
    )
)
given = camera.libcamera_config.at(camera.lores_index).color_space
camera.close()

np.savez(
    "/tmp/work/out.npz",
    pictures=np.stack([frame.gray for frame in taken]),
    halves=np.stack([np.empty((0, 0), np.uint8) if frame.half is None else frame.half for frame in taken]),
    description=source.description,
    times=[frame.time for frame in [*taken, late]],
    dropped=dropped,
    closing=closing,
    video_default_is_full_range=given.range == ColorSpace.Range.Full,
)
