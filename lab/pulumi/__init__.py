"""Pulumi on the lab: `python -m lab.pulumi` runs the lab stack; a language host for the CLI that the lab builds."""
