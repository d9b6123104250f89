"""Measures of a model, their plots, and the card that tells them."""
