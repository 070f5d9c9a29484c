"""Our arithmetic against the official code of the methods and metrics, on the same tensors."""
