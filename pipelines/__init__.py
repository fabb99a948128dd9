"""The Beam jobs, and the only place that imports Beam."""
