"""Training on a workstation: data, networks, recipes and the training loop.

TensorFlow 2.21 uses Keras 3 by default, which tensorflow-model-optimization cannot quantize. This module selects the
legacy Keras, which it can, before anything imports TensorFlow.
"""

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
