"""Sources of frames: files, folders, the demo, network streams, and cameras."""
