"""Scores of a model and of what stands beside it."""
