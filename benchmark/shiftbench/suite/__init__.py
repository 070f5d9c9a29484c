"""Suites, their plans and identities."""
