"""The scoring job, from the command to the figures: `command` is the door."""
