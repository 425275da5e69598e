"""Which function answers a request, and what is answered when none does or it fails."""

import asyncio
from typing import Any

import pytest

from agent.http.application import Application, NoRoute, Route
from agent.http.request import Request
from agent.http.response import JSONResponse, Response, StreamingResponse


async def show(request: Request) -> Response:
    return JSONResponse([request.method, request.path_params])


async def fail(_request: Request) -> Response:
    raise OSError


async def _on_no_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, NoRoute)
    return JSONResponse(sorted(error.methods), error.status)


async def _on_failure(_request: Request, error: Exception) -> Response:
    return JSONResponse(type(error).__name__, 500)


ROUTES = [
    Route("GET", "/kv", show),
    Route("GET", "/kv/{key:key}", show),
    Route("PUT", "/kv/{key:key}", show),
    Route("POST", "/members/{name}/facts.", show),
    Route("GET", "/fail", fail),
]


def ask(method: str, path: str) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    application = Application(ROUTES, {NoRoute: _on_no_route, Exception: _on_failure})
    scope = {"method": method, "path": path, "headers": [], "query_string": b""}
    asyncio.run(application(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/kv", b'["GET",{}]'),
        ("HEAD", "/kv", b'["HEAD",{}]'),
        ("GET", "/kv/", b'["GET",{"key":""}]'),
        ("PUT", "/kv/a/b\n", b'["PUT",{"key":"a/b\\n"}]'),
        ("POST", "/members/ada/facts.", b'["POST",{"name":"ada"}]'),
    ],
)
def test_a_route_is_found_with_what_its_path_names(method: str, path: str, answer: bytes) -> None:
    assert ask(method, path) == (200, answer)


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/", (404, b"[]")),
        ("GET", "/kv\n", (404, b"[]")),
        ("POST", "/members/a/b/facts.", (404, b"[]")),
        ("POST", "/members/ada/facts!", (404, b"[]")),
        ("HEAD", "/members/ada/facts.", (405, b'["POST"]')),
        ("POST", "/kv/a", (405, b'["GET","HEAD","PUT"]')),
    ],
)
def test_who_misses_all_routes_learns_what_the_path_takes(
    method: str, path: str, answer: tuple[int, bytes]
) -> None:
    assert ask(method, path) == answer


def test_a_failure_is_answered_by_the_handler_that_is_nearest() -> None:
    assert ask("GET", "/fail") == (500, b'"OSError"')


def test_of_parameters_with_one_name_the_last_counts_or_all() -> None:
    scope = {"query_string": b"a=1&a=%C3%A4&b=&c"}
    query = Request(scope, None).query_params  # type: ignore[arg-type]
    assert (query.get("a"), query.getlist("a")) == ("ä", ["1", "ä"])
    assert (query.get("b"), query.get("c"), query.get("d"), query.get("d", "x")) == (
        "",
        "",
        None,
        "x",
    )


def test_headers_are_found_in_any_case_and_words_say_how_they_are_written() -> None:
    headers = Request({"headers": [(b"accept", b"a"), (b"accept", b"b")]}, None).headers  # type: ignore[arg-type]
    assert (headers.get("Accept"), headers.get("Host"), headers.get("Host", "")) == ("a", None, "")
    response = Response("é", headers={"Covey-Outcome": "ok"}, media_type="text/plain")
    assert response.raw_headers == [
        (b"covey-outcome", b"ok"),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"2"),
    ]
    assert Response(status_code=204).raw_headers == []


def test_what_goes_wrong_in_a_stream_leaves_its_answer_unfinished() -> None:
    async def broken() -> Any:
        yield b"half"
        raise OSError

    async def stream(_request: Request) -> Response:
        return StreamingResponse(broken())

    sent: list[Any] = []
    handled: list[Exception] = []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    async def note(_request: Request, error: Exception) -> Response:
        handled.append(error)
        return Response()

    application = Application([Route("GET", "/", stream)], {Exception: note})
    scope = {"method": "GET", "path": "/", "headers": [], "query_string": b""}
    asyncio.run(application(scope, receive, send))
    assert [message.get("body") for message in sent] == [None, b"", b"half"]
    assert all(message.get("more_body", True) for message in sent)
    assert [type(error) for error in handled] == [OSError]
