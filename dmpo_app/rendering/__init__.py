"""Making images: the thread that owns the live model, and what it makes when nobody is asking.

`render_thread`, `pool` and `contact_sheet` import no torch; `engine` does and is imported inside the thread.
"""
