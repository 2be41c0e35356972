"""Rehearses searches on problems whose optimum is known: proposers x problems x seeds, measured alike."""
