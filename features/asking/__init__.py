"""A trained model as those who ask it see it, and the command that asks one question."""
