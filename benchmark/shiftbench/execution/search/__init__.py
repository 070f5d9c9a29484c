"""Searches for a method's settings on OOD validation data: proposals, journal, trials, choice.

No ray: what runs the trials side by side is handed in (``search.search``). Trials that train
nothing are run one after the other (``merges``).
"""
