"""Pretrained word vectors: their files, and a model's embedding made from them."""
