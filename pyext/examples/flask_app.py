"""
A Flask application with limits: `gunicorn 'flask_app:create_app()'`.

With REDIS_URL set, all its processes share them.
"""

import os

from flask import Blueprint, Flask
from hopgate_limiter.contrib.flask import RateLimits, by_header

limits = RateLimits(
    "100/min burst 20",
    redis=os.environ.get("REDIS_URL"),
    prefix="rl:flask-example:",
    trusted_proxies=("10.0.0.0/8",),
)
site = Blueprint("site", __name__)


@site.get("/")
def home() -> dict[str, str]:
    """Count towards the default."""
    return {"hello": "world"}


@site.get("/healthz")
@limits.exempt
def healthz() -> dict[str, bool]:
    """Count towards nothing."""
    return {"ok": True}


@site.get("/search")
@limits.limit("4/min")
@limits.limit("100/h", key=by_header("x-api-key"))
def search() -> dict[str, list[str]]:
    """Count an address and an API key; either may refuse, and then neither is charged."""
    return {"found": []}


def create_app() -> Flask:
    """Make the application."""
    app = Flask(__name__)
    app.register_blueprint(site)
    limits.init_app(app)
    return app
