"""The networks: functions that build Keras models."""
