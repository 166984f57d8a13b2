"""
A FastAPI application with limits: `uvicorn fastapi_app:app`.

With REDIS_URL set, all its processes share them.
"""

import os
from typing import Any

from fastapi import APIRouter, FastAPI
from hopgate_limiter.contrib.fastapi import RateLimits, by_header

limits = RateLimits(
    "100/min burst 20",
    redis=os.environ.get("REDIS_URL"),
    prefix="rl:fastapi-example:",
    trusted_proxies=("10.0.0.0/8",),
    exempt=("/healthz",),
    exempt_methods=("OPTIONS",),
)
app = FastAPI()
limits.install(app)

reports = APIRouter(prefix="/reports", dependencies=[limits.limit("20/min", name="reports")])


@app.get("/")
async def home() -> dict[str, str]:
    """Count towards the default."""
    return {"hello": "world"}


@app.get("/healthz")
async def healthz() -> dict[str, bool]:
    """Count towards nothing."""
    return {"ok": True}


@app.get("/search", dependencies=[limits.limit("4/min"), limits.limit("100/h", key=by_header("x-api-key"))])
def search() -> dict[str, list[str]]:
    """Count an address and an API key; either may refuse, and then neither is charged."""
    return {"found": []}


@reports.get("/{number}")
async def report(number: int) -> dict[str, Any]:
    """Count together with the router's other routes."""
    return {"report": number}


app.include_router(reports)
