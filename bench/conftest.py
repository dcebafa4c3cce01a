"""Benchmarks: each asserts its result too, so that a fast wrong answer does not count."""
