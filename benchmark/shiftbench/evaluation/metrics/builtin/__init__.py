"""The built-in metrics, one file each: ``macro_f1.py`` holds ``macro-f1``."""
