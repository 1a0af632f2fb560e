"""Formats of log lines: text for people, or one JSON object a line for collectors of logs (DMPO_LOG_FORMAT)."""

import logging
from typing import Literal

LogFormat = Literal["text", "json"]
_FIELDS = "%(levelname)s %(name)s %(message)s %(process)d"
_NAMES = {"levelname": "level", "name": "logger", "exc_info": "exception"}


def formatter_for(log_format: LogFormat, text_format: str) -> logging.Formatter:
    """Formatter by `text_format`, or as JSON with time (UTC), level, logger, message, process and any exception."""
    if log_format == "text":
        return logging.Formatter(text_format)
    from pythonjsonlogger.json import JsonFormatter  # by choice, so no start waits for it

    return JsonFormatter(_FIELDS, rename_fields=_NAMES, timestamp="time")


def log_json_to_stderr() -> None:
    """Log as JSON to standard error in place of the handlers there are; warnings of Python and of libraries as well.

    Levels stay as they are. To be called again after a library has set handlers of its own (`log_libraries_too`).
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter_for("json", ""))
    logging.captureWarnings(True)
    names = [name for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)]
    for logger in map(logging.getLogger, names):
        if logger.handlers:
            logger.handlers.clear()
            logger.propagate = True
    logging.root.handlers[:] = [handler]


def log_libraries_too() -> None:
    """Take the handlers of libraries that set some when they were imported, as diffusers does, if this logs as JSON."""
    if any(type(handler.formatter).__name__ == "JsonFormatter" for handler in logging.root.handlers):
        log_json_to_stderr()
