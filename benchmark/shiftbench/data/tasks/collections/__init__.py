"""Tasks beside the nine shifts: a file for each collection, with its ``TITLE`` and ``TASKS``.

``TASKS`` maps a name to a task. Sets of the same layout are rows of one table, not files.
"""
