"""The extraction job, from the command to the committed shard."""
