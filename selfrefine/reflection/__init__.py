"""A run looks at its own failures: which tasks it fails, what goes wrong, what the next round should try."""
