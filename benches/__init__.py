"""Timings of the fused network beside what users have without it; ``python -m benches``."""
