"""Executes: pipelines, strategies, sample bank, cost models, backends and metrics; knows no planner and no SQL."""
