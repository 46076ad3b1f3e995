# SPDX-License-Identifier: MIT
"""A worker that forks, takes batches, and asks several keys at once."""
import os
import sys
from typing import Optional

from aiosteady.blocking import Part, Throttler, ThrottleResult, consume_all, peek_all, connect

store = connect(sys.argv[1], timeout=10)
batches = Throttler(store, limits="10/hour", prefix="batch:")
tenant = Throttler(store, max_capacity=100, drop_recharge=60.0, block_duration=None, prefix="tenant:")


def batch(size: int) -> int:
    result: ThrottleResult = batches.consume("all", size, at_least=1)
    return result.granted if result.success else 0


def wait_of(parts: "list[Part]") -> Optional[float]:
    result = consume_all(parts, max_wait=3600)
    return result.must_wait if result.success else None


def child() -> None:
    print("child", batch(4), flush=True)


print("parent", batch(3), flush=True)
pid = os.fork()
if pid == 0:
    child()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(peek_all([(batches, "all", 1), (tenant, "anna")]).success)
print(wait_of([Part(batches, "other", 10), Part(tenant, "anna", 5, "charge")]))
print(tenant.charge("anna", 5).level, tenant.reset("anna").level)
store.close()
