"""What MLflow and Weights & Biases are told of a run: `trackers` is the door; `mlflow_model` is a
model as MLflow's own loader takes it."""
