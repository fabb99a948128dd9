"""Training on cached features: the model, its input pipeline, the loop, and honest baselines.

Nothing here decodes a video or imports Beam; see `features` for what is cached.
"""
