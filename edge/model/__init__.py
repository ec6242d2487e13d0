"""The deployable bundle: preprocessing, the network, the Edge TPU, and the models installed on a device."""
