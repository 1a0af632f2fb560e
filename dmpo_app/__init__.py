"""DMPO Studio: people say which of two images they prefer, and a diffusion model learns it while they watch.

Reading order: domain, objective/dmpo, training/step, training/round_runner, diffusion/live_model,
rendering/render_thread, store/database, labeling/service, web/routes, ui, wiring.
"""

__version__ = "0.1.0"
