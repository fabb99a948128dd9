"""`framebank plan`: what an extraction will take, from probes and a short run."""
