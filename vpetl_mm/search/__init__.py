"""Search for settings on held-out training data, by Optuna; every trial is an ordinary run."""
