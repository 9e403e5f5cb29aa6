"""A run on disk: streams and files that survive a kill, rounds, the run, its manifest, its audit."""
