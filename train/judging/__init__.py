"""What a network answers (`predicting`), what it must beat (`baselines`), and how sure that is."""
