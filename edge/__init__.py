"""fer-edge on the device: find faces in camera pictures, classify their expressions, publish events over MQTT.

This package needs numpy, OpenCV, a TFLite runtime and paho-mqtt; it never imports TensorFlow, ``train`` or ``export``.
"""
