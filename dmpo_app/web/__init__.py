"""The JSON API under /api/v1: plain FastAPI routes that stand beside Gradio."""

from dmpo_app.web.router import create_router
from dmpo_app.web.services import Services

__all__ = ["Services", "create_router"]
