"""How the API says that something went wrong: problem JSON (RFC 9457), with a sentence that can be read."""

from __future__ import annotations

import logging
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from engines.errors import DeadlineError, StandinError, UsageError
from stream.address import redacted
from stream.service.api_guard import INSIDE, PROBLEM_TYPE, problem
from stream.service.control import UnknownStreamError

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """What went wrong.

    Attributes:
        type: always `about:blank`: the status says which kind of problem it is.
        title: the status in words.
        status: of the answer.
        detail: what was given, what was expected, what to do.
    """

    type: str
    title: str
    status: int
    detail: str


#: What every route may answer, for the description.
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": Problem, "description": "The request was wrong, or is not allowed."},
    "5XX": {"model": Problem, "description": "It could not be done."},
}


def answer_problems(app: FastAPI) -> None:
    """Turn what the routes raise into answers."""

    @app.exception_handler(StandinError)
    async def ours(request: Request, error: StandinError) -> JSONResponse:
        status = _status(error)
        if status >= 500:
            # As it would be typed: a path can hold a line break.
            log.warning("%s %r: %s", request.method, request.url.path, redacted(str(error)))
        return _answer(status, redacted(str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # The input itself stays out: it may hold credentials.
        faults = (f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {fault['msg']}" for fault in error.errors())
        return _answer(422, "; ".join(faults))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        # The guard gets the error, too, and logs it.
        return _answer(500, INSIDE)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        details = {404: "there is nothing at this address; /docs says what there is", 405: "the method is not for this"}
        return _answer(error.status_code, details.get(error.status_code, error.detail), error.headers)


def describe_problems(app: FastAPI) -> None:
    """Say in the OpenAPI description what problems look like, instead of what FastAPI would have answered."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes, tags=_TAGS
            )
            for operation in (o for path in found["paths"].values() for o in path.values()):
                # What FastAPI takes for the summary is only the function's name.
                operation["summary"] = operation.pop("description", operation["summary"])
                operation["responses"].pop("422", None)
                for status, response in operation["responses"].items():
                    if status in PROBLEMS:
                        response["content"] = {PROBLEM_TYPE: response["content"]["application/json"]}
            for name in ("HTTPValidationError", "ValidationError"):
                found["components"]["schemas"].pop(name, None)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


_TAGS: Final = [
    {"name": "streams", "description": "What streams do."},
    {"name": "changes", "description": "These need the API token, and a Host header that names this server."},
    {"name": "probes", "description": "For monitoring."},
]


def _status(error: StandinError) -> int:
    kinds = ((UnknownStreamError, 404), (UsageError, 400), (DeadlineError, 503))
    return next((status for kind, status in kinds if isinstance(error, kind)), 500)


def _answer(status: int, detail: str, headers: Any = None) -> JSONResponse:
    return JSONResponse(problem(status, detail), status, headers, media_type=PROBLEM_TYPE)
