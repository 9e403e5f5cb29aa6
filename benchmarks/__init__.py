"""selfrefine beside its peers, in one run: `make bench`, `python -m benchmarks --only sample-fixed`."""
