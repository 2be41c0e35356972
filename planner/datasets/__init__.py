"""Takes in uploaded data sets: checks every row and keeps them as files below the data root."""

from planner.datasets.errors import DiskFull, FaultyRows, StillNeeded, TooLarge
from planner.datasets.keeping import DatasetStore, Limits
from planner.datasets.reading import FORMATS, DatasetFormat

__all__ = [
    "FORMATS",
    "DatasetFormat",
    "DatasetStore",
    "DiskFull",
    "FaultyRows",
    "Limits",
    "StillNeeded",
    "TooLarge",
]
