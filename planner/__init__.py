"""Decides: the search loop, proposers, guidelines, statistics, plans and the archive."""
