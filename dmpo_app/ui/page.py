"""The whole page: its theme, a line on top and the tabs; and its server, which adds headers and blocks paths.

The tabs that are one custom element each are made here.
"""

import importlib
from dataclasses import dataclass
from urllib.parse import urlsplit

import gradio as gr
from gradio.themes.utils.colors import Color
from gradio.themes.utils.fonts import LocalFont
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dmpo_app.errors import SetupError
from dmpo_app.settings import on_space
from dmpo_app.ui.assets import FOLDER, Assets
from dmpo_app.ui.compare_tab import compare_tab, gpu_minute_panel
from dmpo_app.web.ports import free_port, port_taken_message
from dmpo_app.web.router import PREFIX, build_api_app, create_router
from dmpo_app.web.routes.health_routes import ROOT_PATHS
from dmpo_app.web.services import Services

GREEN = Color(
    name="studio_green", c50="#eefaf6", c100="#d5f2e9", c200="#aee4d5", c300="#7acfbb", c400="#46b39d", c500="#1f9682",
    c600="#0d7a69", c700="#0c6256", c800="#0d4e46", c900="#0c413b", c950="#042523",
)  # fmt: skip
PAPER = Color(
    name="studio_paper", c50="#fbfaf7", c100="#f4f2ed", c200="#e7e4dc", c300="#d3cec3", c400="#a39d91", c500="#78736a",
    c600="#5a564f", c700="#423f3a", c800="#2a2825", c900="#1c1b19", c950="#131211",
)  # fmt: skip


def studio_theme() -> gr.themes.Base:
    """The theme of the whole page; the studio's own elements read the same CSS variables."""
    theme = gr.themes.Base(
        primary_hue=GREEN,
        secondary_hue=GREEN,
        neutral_hue=PAPER,
        radius_size=gr.themes.sizes.radius_lg,
        font=[LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    )
    return theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        block_background_fill="#ffffff",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_title_text_weight="600",
        block_shadow="none",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        color_accent="*primary_600",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="*neutral_950",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
    )


def label_tab(num_images: int) -> None:
    """Build the Label tab, with room for `num_images` images, so that nothing moves when the first ones come."""
    widget = f'<dmpo-label data-images="{num_images}"></dmpo-label>'
    gr.HTML(widget, apply_default_css=False, js_on_load=None, padding=False)


def contact_sheet_tab() -> None:
    """Build the Contact sheet tab: the same prompts and seeds under every version."""
    gr.HTML("<dmpo-sheet></dmpo-sheet>", apply_default_css=False, js_on_load=None, padding=False)


def progress_tab(services: Services) -> None:
    """Build the Progress tab: votes, rounds and versions; on ZeroGPU, above them, the button that lends a minute."""
    if services.gpu_minutes is not None:
        gpu_minute_panel(services.gpu_minutes)
    gr.HTML("<dmpo-progress></dmpo-progress>", apply_default_css=False, js_on_load=None, padding=False)


def prompts_tab() -> None:
    """Build the Prompts tab, for administrators."""
    gr.HTML("<dmpo-prompts></dmpo-prompts>", apply_default_css=False, js_on_load=None, padding=False)


def quality_tab() -> None:
    """Build the Quality tab, for administrators."""
    gr.HTML("<dmpo-quality></dmpo-quality>", apply_default_css=False, js_on_load=None, padding=False)


TITLE = "DMPO Studio"
_HEADER = """<div class="st-top">
  <img class="st-logo" src="./studio/static/{build}/logo.svg" alt="" width="34" height="34">
  <div class="st-words">
    <h1 class="st-name">DMPO Studio</h1>
    <p class="st-line">Say which image you prefer. The model learns it while you watch.</p>
  </div>
  <dmpo-header></dmpo-header>
</div>"""


def build_ui(services: Services) -> gr.Blocks:
    """Build the Gradio blocks of the page; nothing listens yet."""
    blocks = gr.Blocks(title=TITLE, analytics_enabled=False)
    with blocks:
        header = _HEADER.format(build=Assets.load().build)
        gr.HTML(header, apply_default_css=False, js_on_load=None, padding=False)
        with gr.Tabs():
            with gr.Tab("Label"):
                label_tab(services.settings.labeling.num_images)
            with gr.Tab("Before / after"):
                compare_tab(services)
            with gr.Tab("Contact sheet"):
                contact_sheet_tab()
            with gr.Tab("Progress"):
                progress_tab(services)
            with gr.Tab("Prompts"):
                prompts_tab()
            with gr.Tab("Quality"):
                quality_tab()
    blocks.queue(max_size=64, status_update_rate=10, default_concurrency_limit=1)
    return blocks


_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {ancestors}"
)
SPACES_ANCESTORS = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"

BLOCKED_PATHS = (
    "/gradio_api/upload", "/gradio_api/file", "/gradio_api/proxy", "/gradio_api/stream", "/gradio_api/deep_link",
    "/gradio_api/process_recording", "/gradio_api/component_server", "/gradio_api/custom_component", "/gradio_api/runs",
    "/gradio_api/run-history", "/gradio_api/vibe-", "/gradio_api/undo-vibe-", "/gradio_api/dev/", "/gradio_api/mcp",
    "/gradio_api/cancel", "/monitoring", "/svelte/",
)  # fmt: skip
"""Gradio's endpoints that this page has no use for; whatever they would do is answered 404."""

_API = f"{PREFIX}/"
_NOT_FOUND = b'{"detail": "Not Found", "code": "not_found"}'


class SecurityMiddleware:
    """ASGI middleware. `embeddable`: the page may stand in a frame of Spaces, as it has to there."""

    def __init__(self, app: ASGIApp, api: ASGIApp, *, embeddable: bool) -> None:
        self._app = app
        self._api = api
        self._policy = _POLICY.format(ancestors=SPACES_ANCESTORS if embeddable else "'self'")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._set_security_headers(MutableHeaders(scope=message))
            await send(message)

        if scope["path"].startswith(BLOCKED_PATHS):
            await _refuse(send_hardened)
            return
        is_ours = scope["path"].startswith(_API) or scope["path"] in ROOT_PATHS
        app = self._api if is_ours else self._app
        await app(scope, receive, send_hardened)

    def _set_security_headers(self, headers: MutableHeaders) -> None:
        for name in [name for name in headers if name.startswith("access-control-")]:
            del headers[name]
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Content-Security-Policy", self._policy)


async def _refuse(send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": _NOT_FOUND})


@dataclass(frozen=True)
class RunningServer:
    """A server that accepts requests."""

    url: str
    port: int
    blocks: gr.Blocks

    def close(self) -> None:
        """Stop accepting, finish what is under way for a few seconds, and return."""
        self.blocks.close(verbose=False)


def launch(blocks: gr.Blocks, services: Services) -> RunningServer:
    """Serve page and API at the settings' host and port; returns as soon as requests are accepted.

    Raises SetupError when the port is taken or the address is not one of this machine.
    """
    settings = services.settings
    preselect_matplotlib_backend()
    assets = Assets.load()
    port = free_port(settings.host, settings.port)
    api = create_router(services)
    routes = [*api.routes, *assets.router().routes]
    try:
        app, url, _ = blocks.launch(
            server_name=settings.host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size="1kb",
            state_session_capacity=200,
            theme=studio_theme(),
            head=assets.head(),
            favicon_path=FOLDER / "logo.svg",
            # Ours come before Gradio's, and before the first request can.
            app_kwargs={"routes": routes, "openapi_url": None},
        )
    except OSError as error:  # taken since the probe, or no answer within Gradio's 5 seconds
        busy = "Or this machine is too busy right now: try again."
        raise SetupError(f"{port_taken_message(settings.host, port)} {busy}") from error
    page = app.middleware_stack or app.build_middleware_stack()
    app.middleware_stack = SecurityMiddleware(page, build_api_app(api, services), embeddable=on_space())
    return RunningServer(url=_address(settings.host, port, url), port=port, blocks=blocks)


def preselect_matplotlib_backend() -> None:
    """Choose matplotlib's backend, as Gradio does around every event; without a choice, asking for it imports pyplot.

    Gradio does that on the event loop: with the first event every vote waited for the import, up to seconds.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        return
    matplotlib.use("agg")


def _address(host: str, port: int, url: str) -> str:
    """URL at which a person on this machine opens the page."""
    return f"http://localhost:{port}/" if urlsplit(url).hostname in {"0.0.0.0", "::"} or host == "::" else url
