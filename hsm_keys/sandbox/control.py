"""The control endpoints beside Kalshi's: other processes switch faults, and see what reached the server.

``GET``, ``POST`` and ``DELETE /_sandbox/faults``; ``GET /_sandbox/requests``. They are neither signed nor recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from hsm_keys.errors import UsageError
from hsm_keys.sandbox.faults import parse_fault
from hsm_keys.sandbox.wire import WireError, json_object

if TYPE_CHECKING:
    from hsm_keys.sandbox.faults import Faults
    from hsm_keys.sandbox.recording import Recorder

__all__ = ["add_routes"]

_FAULTS = "/_sandbox/faults"
_REQUESTS = "/_sandbox/requests"


def add_routes(router: web.UrlDispatcher, faults: Faults, recorder: Recorder) -> None:
    """Add the control endpoints."""

    async def list_faults(_: web.Request) -> web.Response:
        return web.json_response({"faults": [str(fault) for fault in faults.active]})

    async def add_fault(request: web.Request) -> web.Response:
        """``{"fault": "POST /api_keys:drop-after:1"}``, answered with all that are on."""
        try:
            spec = json_object(await request.read()).get("fault")
            if not isinstance(spec, str):
                raise UsageError("there is no fault in the body", hint='send {"fault": "ENDPOINT:WHAT:TIMES"}')
            faults.add(parse_fault(spec))
        except WireError as error:
            return web.json_response(error.body, status=error.status)
        except UsageError as error:
            return web.json_response({"code": error.code, "message": str(error)}, status=400)
        return web.json_response({"faults": [str(fault) for fault in faults.active]}, status=201)

    async def clear_faults(_: web.Request) -> web.Response:
        faults.clear()
        return web.Response(status=204)

    async def list_requests(_: web.Request) -> web.Response:
        return web.json_response({"requests": [request.as_json() for request in recorder.requests]})

    router.add_get(_FAULTS, list_faults, allow_head=False)
    router.add_post(_FAULTS, add_fault)
    router.add_delete(_FAULTS, clear_faults)
    router.add_get(_REQUESTS, list_requests, allow_head=False)
