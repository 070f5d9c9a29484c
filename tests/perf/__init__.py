"""What training, evaluation and reports cost, measured by hand: ``make perf``."""
