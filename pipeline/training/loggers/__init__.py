"""Loggers of training: terminal, CSV files, TensorBoard and MLflow."""
