"""What every job shares: options, where workers run, what goes wrong on them, servers, progress."""
