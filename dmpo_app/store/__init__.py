"""What the studio remembers: tables, transactions, files. Knows nothing of models, pages or HTTP."""

from dmpo_app.store.store import Store, utc_now

__all__ = ["Store", "utc_now"]
