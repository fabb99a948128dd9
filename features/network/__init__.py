"""Frozen weights as a function from frames to features: `frozen_network` is the door."""
