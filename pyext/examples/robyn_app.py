"""
A Robyn application with limits: `PORT=8080 python robyn_app.py`.

With REDIS_URL set, all its processes share them.
"""

import os

from hopgate_limiter.contrib.robyn import RateLimits, by_header
from robyn import Robyn

limits = RateLimits(
    "100/min burst 20",
    routes={"/search": "4/min", "/users/{id}": "20/s", "/healthz": None},
    redis=os.environ.get("REDIS_URL"),
    prefix="rl:robyn-example:",
    trusted_proxies=("10.0.0.0/8",),
)
app = Robyn(__file__)
limits.install(app)


@app.get("/")
async def home() -> dict[str, str]:
    """Count towards the default."""
    return {"hello": "world"}


@app.get("/healthz")
async def healthz() -> dict[str, bool]:
    """Count towards nothing."""
    return {"ok": True}


@app.get("/search")
@limits.limit("100/h", key=by_header("x-api-key"))
def search() -> dict[str, list[str]]:
    """Count an address by its path, and an API key; either may refuse, and then neither is charged."""
    return {"found": []}


if __name__ == "__main__":
    app.start(host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
