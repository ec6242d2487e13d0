"""What the Edge TPU compiler will do, what it did, and its files in bundles."""
