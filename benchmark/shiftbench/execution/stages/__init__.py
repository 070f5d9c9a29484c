"""The three stages of a run: fit it, predict with each of its variants, score the predictions.

Each stage leaves its result in the run's folder under a final name, and finds nothing to do when
it is there. So a process may be killed anywhere, and the same call goes on.
"""
