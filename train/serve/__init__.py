"""A server that answers questions about clips over HTTP: `command` is the door."""
