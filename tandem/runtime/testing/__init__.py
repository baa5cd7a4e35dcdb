"""What a controller's own tests need: an API server in memory, time that jumps, and the check for idempotence."""

from __future__ import annotations
