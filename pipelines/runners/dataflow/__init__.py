"""Dataflow: its checks and defaults (`submission`), its jobs, its templates."""
