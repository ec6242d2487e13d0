"""From a frame to faces: where to look, the detector, the tracker, and which face is classified when."""
