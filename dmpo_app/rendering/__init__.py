"""Making images: the thread that owns the live model, and what it makes when nobody is asking.

`render_thread`, `background`, `pool` and `contact_sheet` import no torch; `engine` and what it uses are imported inside
the thread.
"""
