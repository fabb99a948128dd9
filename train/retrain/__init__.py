"""The schedule's command, and the registry of models."""
