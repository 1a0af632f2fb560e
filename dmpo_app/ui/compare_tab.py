"""The before/after tab: a form of Gradio's components; and the controls of ZeroGPU, events in Gradio's queue.

The form's button hands the values to `<dmpo-compare>` in the browser, which asks the JSON API, so that prompts and
images pass neither Gradio's queue nor its file cache.

On ZeroGPU, the button that lends a GPU minute and images on request go through the queue: that is how the request of
the person comes along, and with it the quota that the GPU minutes are taken from. Their handlers return messages;
nothing that goes wrong is an exception there.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, NamedTuple

import gradio as gr
from pydantic import ValidationError

from dmpo_app.domain.judging import VersionState
from dmpo_app.domain.limits import MAX_SEED, MAX_STRENGTH
from dmpo_app.domain.lineage import BASE_VERSION, RenderRequest, ZeroGpuService
from dmpo_app.domain.prompt import MAX_PROMPT
from dmpo_app.errors import StudioError
from dmpo_app.web.api_models import RenderBody
from dmpo_app.web.routes.studio_routes import IMAGE_LIFETIME
from dmpo_app.web.routes.voting_routes import image_url
from dmpo_app.web.services import Services
from dmpo_app.web.shown_messages import without_paths

MAX_SUGGESTIONS = 6
RenderResult = dict[str, Any]
"""Result of a render for the browser: `images`, each with `version` and `url`, or `problem` in words."""

_GPU_MINUTE_HELP = """<p class="ln-help">This Space has no GPU of its own. Rounds and images are made in GPU
minutes that people lend: yours is taken off your own daily share on Hugging Face, and only while this page is
open.</p>"""
_DELIVER_RESULT_JS = """(answer) => { document.querySelector("dmpo-compare")?.answered(answer); }"""
_RENDER_JS = """(prompt, seed, guidance, steps, left, right, strength) => {
  document.querySelector("dmpo-compare")?.render({ prompt, seed, guidance, steps, left, right, strength });
}"""
_LISTS_JS = """(left, right) => document.querySelector("dmpo-compare")?.lists(left, right) ?? []"""
_DICE_JS = "() => Math.floor(Math.random() * 2147483648)"


class Controls(NamedTuple):
    """Controls of the form, in the order in which the browser gets their values."""

    prompt: gr.Textbox
    seed: gr.Number
    guidance: gr.Slider
    steps: gr.Slider
    left: gr.Dropdown
    right: gr.Dropdown
    strength: gr.Slider


def compare_tab(services: Services) -> None:
    """Build the Before / after tab: the form, and the element that shows two versions of an image."""
    choices, live = version_choices(services)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            controls, dice = _form(services, choices, live)
            render = gr.Button("Render", variant="primary", elem_id="ba-render")
        with gr.Column(scale=3, min_width=300):
            gpu_minutes_attribute = "" if services.gpu_minutes is None else " lent"
            compare = f'<dmpo-compare data-live="{live}"{gpu_minutes_attribute}></dmpo-compare>'
            elements = f"{compare}<dmpo-suggest></dmpo-suggest>"
            gr.HTML(elements, apply_default_css=False, js_on_load=None, padding=False)
    refresh = gr.Button(visible="hidden", elem_id="ba-refresh")

    inputs = list(controls)
    render.click(fn=None, inputs=inputs, outputs=None, js=_RENDER_JS, api_visibility="private")
    seed_event = dice.click(fn=None, inputs=None, outputs=controls.seed, js=_DICE_JS, api_visibility="private").then(
        fn=None, inputs=inputs, outputs=None, js=_RENDER_JS, api_visibility="private"
    )

    if services.gpu_minutes is not None:
        render_by_queue(services, services.gpu_minutes, [render.click, seed_event.then], inputs)

    lists = [controls.left, controls.right]
    refresh.click(fn=None, inputs=lists, outputs=lists, js=_LISTS_JS, api_visibility="private")


def _form(services: Services, choices: list[tuple[str, int]], live: int) -> tuple[Controls, gr.Button]:
    """The controls and the button that rolls a seed."""
    suggestions = held_out_prompts(services)
    defaults = services.sampling
    prompt = gr.Textbox(
        label="Prompt",
        value=suggestions[0] if suggestions else "",
        placeholder="What should the image show?",
        lines=2,
        max_lines=4,
        max_length=MAX_PROMPT,
        elem_id="ba-prompt",
    )
    if services.settings.labeling.free_prompts:
        gr.HTML("<dmpo-propose></dmpo-propose>", apply_default_css=False, js_on_load=None, padding=False)
    if suggestions:
        gr.HTML(_examples(suggestions), apply_default_css=False, js_on_load=None, padding=False)
    with gr.Row(elem_classes="ba-versions"):
        left = gr.Dropdown(choices, value=BASE_VERSION, label="Left", min_width=120, elem_id="ba-left")
        right = gr.Dropdown(choices, value=live, label="Right", min_width=120, elem_id="ba-right")
    with gr.Row(equal_height=True):
        seed = gr.Number(7, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120, scale=3)
        dice = gr.Button("⚄ Roll", min_width=80, scale=1, elem_id="ba-dice")
    strength = gr.Slider(0, MAX_STRENGTH, value=1.0, step=0.05, label="Strength", info="How much of the adapter")
    with gr.Accordion("Sampling", open=False):
        guidance = gr.Slider(0, 15, value=defaults.guidance, step=0.1, label="Guidance")
        steps = gr.Slider(1, 100, value=min(100, defaults.num_steps), step=1, label="Steps")
    return Controls(prompt, seed, guidance, steps, left, right, strength), dice


def _examples(prompts: Sequence[str]) -> str:
    """Buttons that write a prompt into the form."""
    buttons = "".join(f'<button type="button" class="st-button">{escape(text)}</button>' for text in prompts)
    return f"<dmpo-examples><p>Prompts the model never trained on</p>{buttons}</dmpo-examples>"


def version_choices(services: Services) -> tuple[list[tuple[str, int]], int]:
    """Names and numbers of every version for a list, the newest first, and the live one."""
    states = services.store.adapters.states(services.base)
    live = next(version for version, state in states.items() if state is VersionState.LIVE)
    names = {version: "Base" if version == BASE_VERSION else f"Version {version}" for version in states}
    return [
        (f"{names[version]} · {states[version].words}" if states[version].words else names[version], version)
        for version in sorted(states, reverse=True)
    ], live


def held_out_prompts(services: Services) -> list[str]:
    """A few prompts that pairs are never made of, always the same ones."""
    prompts = sorted(prompt.text for prompt in services.store.prompts.list(held_out=True))
    return random.Random(0).sample(prompts, min(MAX_SUGGESTIONS, len(prompts)))


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
            preprocess=False,  # the lists' versions are the browser's; `render_for_page` checks all values
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
