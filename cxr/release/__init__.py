"""What ships and what it decides: the model with its facts, the log of its answers, drift of what it is sent."""
