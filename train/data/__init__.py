"""Questions joined with a cache, their splits, and batches of both."""
