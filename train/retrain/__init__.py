"""The schedule's command and the registry of models: `retraining` and `registry` are the doors."""
