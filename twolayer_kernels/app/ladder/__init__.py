"""The ladder: every system of the tutorials beside its fused twin; ``docs/ladder.md`` explains."""
