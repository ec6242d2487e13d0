"""``fer-edge preview``: a page that shows the live picture, to mount a camera and light its place by looking.

It is started by hand and ends by itself. The service never imports it: no room but the command line may.
"""
