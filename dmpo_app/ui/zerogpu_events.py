"""ZeroGPU controls: the button that lends a GPU minute, and images on request, both as events in Gradio's queue.

That is how the request of the person comes along, and with it the quota that the GPU minutes are taken from. Everything
else of the page goes by the JSON API as everywhere. Handlers return messages; nothing that goes wrong is an exception
here.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import gradio as gr
from pydantic import ValidationError

from dmpo_app.domain.render_request import RenderRequest, ZeroGpuService
from dmpo_app.errors import StudioError
from dmpo_app.web.api_models import RenderBody
from dmpo_app.web.error_responses import without_paths
from dmpo_app.web.routes.studio_routes import IMAGE_LIFETIME
from dmpo_app.web.routes.voting_routes import image_url
from dmpo_app.web.services import Services

RenderResult = dict[str, Any]
"""Result of a render for the browser: `images`, each with `version` and `url`, or `problem` in words."""

_GPU_MINUTE_HELP = """<p class="ln-help">This Space has no GPU of its own. Rounds and images are made in GPU
minutes that people lend: yours is taken off your own daily share on Hugging Face, and only while this page is
open.</p>"""
_DELIVER_RESULT_JS = """(answer) => { document.querySelector("dmpo-compare")?.answered(answer); }"""


def gpu_minute_panel(gpu_minutes: ZeroGpuService) -> None:
    """Build the GPU minute button of the Progress tab. One minute at a time: more people wait in Gradio's queue."""

    def lend() -> Iterator[str]:
        try:
            yield from gpu_minutes.run_minute()
        except StudioError as error:
            yield without_paths(str(error))

    gr.HTML(_GPU_MINUTE_HELP, apply_default_css=False, js_on_load=None, padding=False)
    button = gr.Button("Lend my GPU minute", elem_id="lend-minute")
    status_box = gr.Textbox(label="Your GPU minute", interactive=False, lines=2, elem_id="lend-said")
    button.click(lend, outputs=status_box, show_progress="hidden", concurrency_limit=1, api_visibility="private")


def render_by_queue(
    services: Services, gpu_minutes: ZeroGpuService, events: Sequence[Callable[..., Any]], inputs: list[Any]
) -> None:
    """Render images through the queue at each of these events (`button.click`); `<dmpo-compare>` gets the result."""

    def render(prompt: Any, seed: Any, guidance: Any, steps: Any, left: Any, right: Any, strength: Any) -> RenderResult:
        fields = {"prompt": prompt, "seed": _whole(seed), "versions": [left, right], "steps": _whole(steps)}
        return render_for_page(services, gpu_minutes, fields | {"guidance": guidance, "strength": strength})

    result_json = gr.JSON(visible="hidden", elem_id="ba-answer")
    for event in events:
        event(
            render,
            inputs=inputs,
            outputs=result_json,
            show_progress="hidden",
            concurrency_limit=4,
            api_visibility="private",
        ).then(fn=None, inputs=result_json, outputs=None, js=_DELIVER_RESULT_JS, api_visibility="private")


def _whole(value: Any) -> Any:
    """Convert a slider's 20.0 to 20; anything else stays as it is, to be refused by whoever checks it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def render_for_page(services: Services, gpu_minutes: ZeroGpuService, fields: dict[str, Any]) -> RenderResult:
    """Render the requested images, with the checks of POST /api/v1/render."""
    try:
        body = RenderBody.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        return {"problem": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}
    request = RenderRequest(
        body.prompt, body.seed, tuple(body.versions), body.strength, num_steps=body.steps, guidance=body.guidance
    )
    try:
        images = gpu_minutes.render(request)
    except StudioError as error:
        return {"problem": without_paths(str(error))}
    expires_at = datetime.now(UTC) + IMAGE_LIFETIME
    return {
        "images": [{"version": made.version, "url": image_url(services, made.image.id, expires_at)} for made in images]
    }
