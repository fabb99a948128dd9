"""Bytes by address, whole or not at all: `storage`, and a module per kind of store."""
