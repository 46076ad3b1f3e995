# SPDX-License-Identifier: MIT
"""Threads without an event loop, which share a store."""
import sys
from concurrent.futures import ThreadPoolExecutor

from aiosteady.blocking import Denied, Store, Throttler, connect


class Sender:
    def __init__(self, store: Store) -> None:
        self.each = Throttler(store, limits=["3/minute", "100/day"], prefix="each:")
        self.line = Throttler(store, limits="50/second burst 1", prefix="line:")

    def send(self, user: str) -> bool:
        if not self.each.consume(user).success:
            return False
        with self.line.limit("mail", timeout=20) as place:
            return place.success

    def download(self, user: str, size: int) -> str:
        try:
            with self.each.reserve(user, {"1m": 1, "1d": 50}) as reservation:
                reservation.actual = {"1d": size}
                return f"{user}: {size}"
        except Denied as denied:
            return f"{user}: denied by {denied.result.name}"


def main(url: str) -> None:
    with connect(url, connections=2, timeout=10) as store:
        sender = Sender(store)

        @sender.line.limit(lambda number, text="": f"sms:{number}")
        def sms(number: int, text: str = "") -> str:
            return f"{number} {text}"

        with ThreadPoolExecutor(4) as threads:
            sent: list[bool] = list(threads.map(sender.send, ["anna"] * 4))
        print(sorted(sent), sms(5, text="hello"))
        print(sender.download("bert", 3), sender.each.peek("bert", (0, 0)).limits["1d"].level)
        print(sender.each.wait("bert", timeout=20).success, store.ready, store.stats()["unknown"])


main(sys.argv[1])
