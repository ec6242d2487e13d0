"""What a network learns from: the data set, FERPlus votes, augmentation, batches and view banks."""
