"""Data: sources of labelled images, the tasks made of them, and images up to a model's input."""
