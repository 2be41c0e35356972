"""Measures what the project claims; each module is a command that prints JSON."""
