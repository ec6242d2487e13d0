"""fer-edge on the device: see a face, say which of seven expressions it shows, tell the world over MQTT.

This package needs numpy, OpenCV, a TFLite runtime and paho-mqtt; it never imports TensorFlow, ``train`` or ``export``.
"""
