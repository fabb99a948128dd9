"""Flink: its checks (`submission`), its REST API, Beam's job server for it."""
