"""One untrusted file in, the frames that a rule picks out: `decode` is the door."""
