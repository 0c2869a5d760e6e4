"""Server of ``mmfusion app``: Gradio's page with security headers and size limits."""

from collections.abc import Mapping
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmfusion.inference.predictor import Predictor
from mmfusion.serving.config import AppConfig
from mmfusion.serving.page import CSS, page, theme

#: Headers of every response. Browsers load files only from this server; Gradio needs inline styles and code.
HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_MEGABYTE = 1024 * 1024


class Bounds:
    """Middleware that adds :data:`HEADERS` to every response and rejects large requests.

    Args:
        app: The wrapped application.
        largest: Maximum size of a request in bytes.
    """

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self.app, self.largest = app, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        size = headers.get("content-length", "")
        if "transfer-encoding" in headers:
            return await PlainTextResponse("The request needs a content length.", 411)(scope, receive, send)
        if size.isdigit() and int(size) > self.largest:
            told = f"Uploads are limited to {self.largest // _MEGABYTE} MB in total."
            return await PlainTextResponse(told, 413)(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name.decode().lower() not in HEADERS]
                message["headers"] = kept + [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        await self.app(scope, receive, with_headers)


def server(models: Mapping[str, Predictor], config: AppConfig, uploads: Path) -> uvicorn.Server:
    """The page, ready to be served.

    Args:
        models: Name -> trained model.
        config: Address and limits.
        uploads: Folder of uploads, set in Gradio's environment.
    """
    blocks = page(models, config, uploads)
    blocks.queue(max_size=32, default_concurrency_limit=1)
    application = FastAPI(openapi_url=None)
    application.add_middleware(Bounds, largest=(config.max_upload_mb + 1) * _MEGABYTE)
    if config.is_local:  # protects against DNS rebinding
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    gr.mount_gradio_app(
        application,
        blocks,
        path="/",
        server_name=config.host,
        server_port=config.port,
        max_file_size=config.max_upload_mb * _MEGABYTE,
        footer_links=["api"],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=CSS,
    )
    if not hasattr(blocks, "has_launched"):
        raise ImportError(
            f"mmfusion app does not support the upload checks of Gradio {gr.__version__}; install another version."
        )
    # otherwise Gradio opens any file of this machine that a caller names as an upload
    blocks.has_launched = True
    return uvicorn.Server(uvicorn.Config(application, log_level="warning", access_log=False))
