"""Work in GPU time that the person lends whose event it is done in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from dmpo_app.domain.render_request import RenderedImage, RenderRequest


class GpuLending(Protocol):
    """To be called in the event of a person on the page, on whose quota the GPU is asked for."""

    def lend(self) -> Iterator[str]:
        """Do what is most useful with one GPU minute, saying how it goes every second or two. Raises StudioError."""
        ...

    def render(self, request: RenderRequest) -> list[RenderedImage]:
        """A person's own images, in the order of the versions asked for. Raises StudioError."""
        ...
