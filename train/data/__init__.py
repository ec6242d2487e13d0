"""Training data: the data set, FERPlus votes, augmentation, batches, and view banks of teachers."""
