"""The policy pack: the availability checklist before anything is applied."""
