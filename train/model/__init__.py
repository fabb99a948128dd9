"""The network: readers of frames and of text, heads, and how all of it is configured."""
