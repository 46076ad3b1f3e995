# SPDX-License-Identifier: MIT
"""A WSGI application with two policies, failures that are counted, and requests to it."""
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Optional, Union

from aiosteady.blocking import Throttler, connect
from aiosteady.wsgi import Decision, Environ, Outcome, Policy, RateLimit, client_address

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication

address = client_address(trusted_hops=1)


def app(environ: Environ, start_response: "StartResponse") -> Iterable[bytes]:
    right = environ["QUERY_STRING"] == "password=right"
    start_response("200 OK" if right else "401 Unauthorized", [("Content-Type", "text/plain")])
    return [b"welcome" if right else b"wrong password"]


def login(environ: Environ) -> Optional[str]:
    return address(environ) if environ["PATH_INFO"] == "/login" else None


def failed(outcome: Outcome) -> int:
    return 1 if outcome.status == 401 else 0


def denied(environ: Environ, decision: Decision) -> Union[dict[str, Any], None]:
    return {"error": "slow down", "by": list(decision.denied_by)} if decision.status == 429 else None


def hook(environ: Environ, decision: Decision) -> None:
    assert environ["PATH_INFO"] == "/login" and decision.keys["failures"]


def main(url: str) -> None:
    with connect(url, timeout=10) as store:
        limited = RateLimit(
            app,
            Throttler(store, limits="100/minute"),
            key=address,
            policies=[Policy(Throttler(store, limits="2/hour"), login, name="failures", hash=True, settle=failed)],
            on_denied=denied,
            on_decision=hook,
        )
        server: WSGIApplication = limited
        for password in ("right", "wrong", "right", "wrong", "right"):

            def start_response(
                status: str, headers: list[tuple[str, str]], exc_info: "Optional[OptExcInfo]" = None
            ) -> Any:
                print(password, status, dict(headers).get("retry-after"))

            environ: dict[str, Any] = {"PATH_INFO": "/login", "QUERY_STRING": f"password={password}", "REMOTE_ADDR": "",
                                       "REQUEST_METHOD": "GET", "HTTP_X_FORWARDED_FOR": "192.0.2.7"}
            print(b"".join(server(environ, start_response)))


main(sys.argv[1])
