"""Prediction, metrics and statistics."""
