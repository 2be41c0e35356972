"""Counts how often the intervals a plan states hold the truth, over simulated studies whose truth is known."""
