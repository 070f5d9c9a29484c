"""The version of the package. Imports nothing, so that anything may import it."""

__version__ = "0.1.0"
