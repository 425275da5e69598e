"""Route of the doctor."""

from agent.http.request import Request
from agent.http.response import JSONResponse, Response


async def examine(request: Request) -> Response:
    """Look at everything, ask every member, and answer with findings and the matrix."""
    return JSONResponse(await request.app.state.agent.doctor.examine())


ROUTES = (("GET", "/api/v1/doctor", examine),)
