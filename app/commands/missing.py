"""One line for a package that is not installed, with the command that installs it."""

from __future__ import annotations

_SERVICES = {
    "psycopg": "PostgreSQL",
    "psycopg_c": "PostgreSQL",
    "psycopg_pool": "PostgreSQL",
    "redis": "Redis",
    "hiredis": "Redis",
    "aio_pika": "RabbitMQ",
    "aiormq": "RabbitMQ",
    "pamqp": "RabbitMQ",
    "yarl": "RabbitMQ",
}
_CLIENT = {"hopgate_client", "httpx", "httpcore", "h11", "anyio"}
_INSTALL_SERVICES = "run `make services`, or pip install 'hopgate[services]'"


def described(error: ImportError) -> str:
    """Return what is missing and how to install it."""
    package = (error.name or "").partition(".")[0]
    if package in _SERVICES:
        return f"the driver of {_SERVICES[package]} ({package}) is not installed: {_INSTALL_SERVICES}"
    if package in _CLIENT:
        return (
            f"what HOPGATE_URL needs ({package}) is not installed: run `make remote`,"
            " or pip install 'hopgate[remote]'"
        )
    if "pq wrapper" in str(error):
        # psycopg without its C part looks for the library itself.
        return f"the driver of PostgreSQL finds no libpq: install libpq5, and {_INSTALL_SERVICES}"
    name = package or str(error).partition("\n")[0]
    return f"{name} is not installed: run `make run`, or pip install hopgate again"
