"""Six ways to classify a video on one set, one split, one budget: `command` is the door."""
