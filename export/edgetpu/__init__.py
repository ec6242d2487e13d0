"""Edge TPU: predict what its compiler maps, run the compiler, and add compiled files to bundles."""
