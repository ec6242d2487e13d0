"""Where frames come from: files, folders, the demo, streams, and live cameras."""
