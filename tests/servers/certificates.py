"""A private certificate authority for servers on localhost."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """Keys and certificates in *directory*; clients trust the certificate `authority`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self.authority = directory / "ca.pem"
        self.key = directory / "server.key"
        self._openssl("req", "-x509", *self._new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests")
        self._openssl(
            "req", *self._new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"
        )
        (directory / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")

    def certificate(self, *, days: int = 1) -> Path:
        """Return a certificate that is valid for *days*; with a negative number, one that has expired."""
        path = self._directory / f"server-{days}.pem"
        request = [
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
        ]
        self._openssl(*request, "-extfile", "names", "-days", str(days), "-out", path.name)
        return path

    def another(self, name: str) -> tuple[Path, Path]:
        """Return a certificate with a key of its own, for localhost."""
        key, request, path = f"{name}.key", f"{name}.csr", self._directory / f"{name}.pem"
        self._openssl("req", *self._new, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "30"]
        self._openssl("x509", "-req", "-in", request, *signed, "-out", path.name)
        return path, self._directory / key

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._directory, check=True, capture_output=True)
