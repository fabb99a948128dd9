"""Asking a trained model: `trained_model` is the door; `heads` and `scores` say what is said."""
