"""Route of the doctor."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


async def examine(request: Request) -> Response:
    """Look at everything, ask every member, and answer with findings and the matrix."""
    return JSONResponse(await request.app.state.agent.doctor.examine())


ROUTES = (("GET", "/api/v1/doctor", examine),)
