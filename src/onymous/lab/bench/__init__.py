"""Benchmarks: ratios to limits measured in the same run."""
