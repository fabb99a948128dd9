"""What every job shares: options, workers, servers, signals, progress."""
