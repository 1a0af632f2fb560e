"""Export of a home's votes in the formats of the field: folders, archives and data sets on the hub."""

from dmpo_app.exchange.exporting.export import ExportSummary, export_to
from dmpo_app.exchange.exporting.export_rows import ExportOptions, Selection
from dmpo_app.exchange.exporting.formats import FORMATS, get_format

__all__ = ["FORMATS", "ExportOptions", "ExportSummary", "Selection", "export_to", "get_format"]
