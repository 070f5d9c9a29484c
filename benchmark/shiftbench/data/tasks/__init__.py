"""Tasks: what to fine-tune on, how its classes are called, and what to evaluate on."""
