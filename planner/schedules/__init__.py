"""The rules of schedules: when one is due, what a run finds out, what it leaves behind and whom it tells."""
