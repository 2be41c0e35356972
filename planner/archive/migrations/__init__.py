"""Changes the archive's schema step by step; run through `planner.archive.migrate`, not by hand."""
