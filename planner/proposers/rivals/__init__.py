"""Holds the rivals: published ways to search, behind the proposers' interface, to measure the product against."""
