"""The parts of `tandem.checklist`."""
