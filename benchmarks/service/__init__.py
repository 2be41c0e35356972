"""Measures the service: many clients on a full queue, and every page and list of a large archive."""
