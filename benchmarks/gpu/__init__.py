"""Speed and accuracy on one GPU; see `benchmarks.gpu.__main__`."""
