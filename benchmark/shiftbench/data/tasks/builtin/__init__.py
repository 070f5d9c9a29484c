"""The tasks of the nine shifts, one file each: ``TASK``, and ``MINIATURE`` for the small copy."""
