"""The store: tables, transactions, files. Independent of models, pages and HTTP."""

from dmpo_app.store.store import Store, utc_now

__all__ = ["Store", "utc_now"]
