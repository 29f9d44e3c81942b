"""Benchmarks: noria beside its peers, in one run, on one machine; what counts are the ratios."""
