"""DMPO Studio: people say which of two images they prefer, and a diffusion model learns it while they watch.

Reading order: domain, objective/dmpo, training/loop, training/rounds/round_runner, diffusion/live_model,
rendering/render_thread, store/db, labeling/service, web/routes, ui, server/wiring.
"""

__version__ = "0.1.0"
