"""Rendering: the thread that owns the live model, and the background work that it does between requests.

`render_thread` and `pool` import no torch; `engine` and what it uses are imported inside the thread.
"""
