"""Bytes by address, whole or not at all.

The front door is `storage`, which asks a module per kind of store; `disk` for what only a disk has;
`locks`, `temporary`; `json_text` and `tables` read what others wrote.
"""
