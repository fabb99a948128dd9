"""The format of a cache on disk, and its readers: `reader.open_cache` is the door."""
