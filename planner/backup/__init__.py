"""Copies a whole service, its archive, its jobs and the data sets it was given, into one file and back."""

from planner.backup.bundle import Manifest, Place, back_up, read_manifest, restore
from planner.backup.databases import BackupError

__all__ = ["BackupError", "Manifest", "Place", "back_up", "read_manifest", "restore"]
