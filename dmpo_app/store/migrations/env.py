"""Alembic's entry: runs the revisions on the connection it is handed, inside that connection's transaction.

`store.db.database.upgrade` puts the connection into `config.attributes`; so do the `alembic` commands that a developer
runs from Python to write a new revision.
"""

from alembic import context

from dmpo_app.store.schema import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
