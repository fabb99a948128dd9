"""Questions and features for training: `joining` is the door, then `splits` and `batches`."""
