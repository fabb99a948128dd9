"""Question files as they are published in, questions out: `reading` is the door."""
