"""Benchmarks that need no machines: what `lab.bench` registers from here."""
