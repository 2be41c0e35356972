"""Writes a plan as files that run without this program: its document, its servers' command lines, a Python module."""

from planner.export.files import EVERY_FILE, ExportFormat, export_files, zipped
from planner.export.templates import NotStandalone

__all__ = ["EVERY_FILE", "ExportFormat", "NotStandalone", "export_files", "zipped"]
