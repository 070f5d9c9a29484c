"""Predictions that were made elsewhere: checked, scored and recorded like those of a run."""
