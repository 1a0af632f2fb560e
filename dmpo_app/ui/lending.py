"""On ZeroGPU: the button that lends a GPU minute, and images on request, both as events in Gradio's queue.

That is how the request of the person comes along, and with it the quota that the GPU is asked for on. Everything else
of the page goes by the JSON API as everywhere. Handlers answer in words; nothing that goes wrong is an exception here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import gradio as gr
from pydantic import ValidationError

from dmpo_app.domain import GpuLending, RenderRequest
from dmpo_app.errors import StudioError
from dmpo_app.web.answers import without_paths
from dmpo_app.web.models import RenderBody
from dmpo_app.web.services import Services
from dmpo_app.web.studio import IMAGE_LIFETIME
from dmpo_app.web.voting import image_url

Answer = dict[str, Any]
"""What the browser is told of a render: `images`, each with `version` and `url`, or `problem` in words."""

_EXPLAINED = """<p class="ln-help">This Space has no GPU of its own. What it learns and paints is done in GPU
minutes that people lend: yours is taken off your own daily share on Hugging Face, and only while this page is
open.</p>"""
_ANSWERED = """(answer) => { document.querySelector("dmpo-compare")?.answered(answer); }"""


def lend_panel(lending: GpuLending) -> None:
    """The button on the Progress tab. One minute at a time: more people wait in Gradio's queue."""

    def lend() -> Iterator[str]:
        try:
            yield from lending.lend()
        except StudioError as error:
            yield without_paths(str(error))

    gr.HTML(_EXPLAINED, apply_default_css=False, js_on_load=None, padding=False)
    button = gr.Button("Lend my GPU minute", elem_id="lend-minute")
    said = gr.Textbox(label="What your minute does", interactive=False, lines=2, elem_id="lend-said")
    button.click(lend, outputs=said, show_progress="hidden", concurrency_limit=1, api_visibility="private")


def render_by_queue(
    services: Services, lending: GpuLending, events: Sequence[Callable[..., Any]], inputs: list[Any]
) -> None:
    """At each of these events (`button.click`) ask for images through the queue; `<dmpo-compare>` gets the answer."""

    def render(prompt: Any, seed: Any, guidance: Any, steps: Any, left: Any, right: Any, strength: Any) -> Answer:
        asked = {"prompt": prompt, "seed": _whole(seed), "versions": [left, right], "steps": _whole(steps)}
        return rendered(services, lending, asked | {"guidance": guidance, "strength": strength})

    answer = gr.JSON(visible="hidden", elem_id="ba-answer")
    for event in events:
        event(
            render, inputs=inputs, outputs=answer, show_progress="hidden", concurrency_limit=4, api_visibility="private"
        ).then(fn=None, inputs=answer, outputs=None, js=_ANSWERED, api_visibility="private")


def _whole(value: Any) -> Any:
    """A slider's 20.0 as 20; anything else as it is, to be refused by whoever checks it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def rendered(services: Services, lending: GpuLending, asked: dict[str, Any]) -> Answer:
    """The images that were asked for, with the checks of POST /api/v1/render."""
    try:
        body = RenderBody.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        return {"problem": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}
    request = RenderRequest(
        body.prompt, body.seed, tuple(body.versions), body.strength, num_steps=body.steps, guidance=body.guidance
    )
    try:
        images = lending.render(request)
    except StudioError as error:
        return {"problem": without_paths(str(error))}
    expires_at = datetime.now(UTC) + IMAGE_LIFETIME
    return {
        "images": [{"version": made.version, "url": image_url(services, made.image.id, expires_at)} for made in images]
    }
