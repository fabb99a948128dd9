"""Flink: its checks and Beam's job server for it (`submission`), its REST API."""
