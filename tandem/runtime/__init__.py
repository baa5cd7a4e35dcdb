"""The controller runtime: election, fences, reflectors, queues, shards. Public names are those of its modules."""

from __future__ import annotations
