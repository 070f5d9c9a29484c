"""The loggers of this package, one a file."""
