"""Finds the usual troubles before they cost an hour, and says what to do about each."""

from api.doctor.examination import Finding, examine

__all__ = ["Finding", "examine"]
