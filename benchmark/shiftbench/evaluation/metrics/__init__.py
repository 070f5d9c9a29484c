"""Metrics: one definition each, from which value, interval, paired test and column follow."""
