"""Training on cached features: the model, its input, the loop, judging. No Beam, no decoding."""
