"""What the Triton compiler makes of every kernel that ships, read from its code: no GPU needed."""
