"""The training run: its command, loop, checkpoints, and the model folder it leaves."""
