"""What leaves a home: its votes in the formats of the field, as folders of files, archives and data sets on the hub."""

from dmpo_app.exchange.exporting.export import ExportSummary, export_to
from dmpo_app.exchange.exporting.export_rows import ExportOptions, Selection
from dmpo_app.exchange.exporting.formats import FORMATS, format_named

__all__ = ["FORMATS", "ExportOptions", "ExportSummary", "Selection", "export_to", "format_named"]
