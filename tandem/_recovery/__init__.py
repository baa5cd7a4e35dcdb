"""The parts of `tandem.recovery`; import that module, not these."""
