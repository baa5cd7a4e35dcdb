"""Drills: lose a worker on purpose, watch the API and real clients at once, and say what happened when."""
