"""The commands that look at a cache, and how every command line is read."""
