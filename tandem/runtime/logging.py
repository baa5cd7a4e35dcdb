"""Structured logs: one JSON object a line, with the controller, the key and the epoch bound where they are known."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `component: name`."""
    logger: FilteringBoundLogger = structlog.get_logger(component=name)
    return logger


def configure(*, level: str = "info", json_lines: bool = True, stream: TextIO | None = None) -> None:
    """Set up the process's logs once, at start; the standard library's loggers go the same way.

    Args:
        level: debug, info, warning or error.
        json_lines: one JSON object a line; False for people at a terminal.
        stream: where to; None is standard error.

    Raises:
        ValueError: no such level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level!r}: debug, info, warning or error")
    out = stream or sys.stderr
    render: Processor = (
        structlog.processors.JSONRenderer(serializer=_dumps)
        if json_lines
        else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    # Without the frames' local variables: objects of a cluster, Secrets too, do not belong into logs.
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
    errors: Processor = (
        structlog.processors.ExceptionRenderer(frames) if json_lines else structlog.processors.format_exc_info
    )
    structlog.configure(
        processors=[*_SHARED, errors, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, _name_of],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, errors, render],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    logging.getLogger("tandem").setLevel(number)


def _name_of(_: Any, __: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    if record is not None:
        event["component"] = record.name
    return event


def _dumps(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()
