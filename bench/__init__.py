"""Benchmarks: what the library costs beside bare I/O and beside others, as ratios of one interleaved run."""
