"""Weights of a backbone trained on, for one task: `command` is the door."""
