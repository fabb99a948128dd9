"""Decoders in processes of their own, shut in and watched: `pool` is the door."""
