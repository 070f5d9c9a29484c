"""The sources that ship with ShiftBench: one file a family, found by the registry."""
