"""Loggers: places outside of the results folder that show the curves of trainings."""
