"""A cache as other libraries' files: the command (`command`) and its `formats`."""
