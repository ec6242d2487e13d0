"""The training kit: data, models, recipes and the trainer, for a workstation.

TensorFlow 2.21 defaults to Keras 3, which tensorflow-model-optimization cannot quantize; the legacy Keras that it
can is chosen here, before TensorFlow is imported anywhere.
"""

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
