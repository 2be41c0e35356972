"""Adaptive stopping on recorded Qwen3 solutions: rules chosen on AIME24, judged once on AIME25."""
