"""What is cached, and how one machine makes it. No Beam, no training."""
