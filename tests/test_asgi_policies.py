# SPDX-License-Identifier: MIT
"""The ASGI middleware with several policies, which have one store together or a store each."""
import json

import pytest
from asgi_rig import WIDE_RECHARGE, ask, ask_all, hello, run
from asgi_rig import asgi, package  # noqa: F401: fixtures


@pytest.fixture(params=["one store", "a store each"])
def throttler(request, package):
    """Makes a Throttler, in memory by default."""
    stores = {}

    def make(capacity=10, recharge=WIDE_RECHARGE, *args, url="memory:", **options):
        if request.param == "one store" and isinstance(url, str):
            url = stores.setdefault(url, package.connect(url))
        return package.Throttler(url, capacity, recharge, *args, **options)

    return make


def three_policies(asgi, throttler, capacities):
    return asgi.RateLimit(hello, policies=[
        asgi.Policy(throttler(capacity, recharge), name=name)
        for name, capacity, recharge in zip(("burst", "minute", "day"), capacities, (60, 600, 6000))])


def test_all_policies_are_asked_and_shown(asgi, throttler):
    assert run(ask(three_policies(asgi, throttler, (5, 10, 100)))).rate_limit == (
        '"burst";q=5;w=300, "minute";q=10;w=6000, "day";q=100;w=600000',
        '"burst";r=4;t=240, "minute";r=9;t=5400, "day";r=99;t=594000')


def test_the_policy_that_denies_is_named_and_the_others_charge_nothing(asgi, throttler):
    app = three_policies(asgi, throttler, (5, 1, 100))

    async def main():
        await ask(app)
        denied = await ask_all(app, 10)
        peeks = [await policy.throttler.peek(policy.name + ":192.0.2.1") for policy in app._policies]
        return denied[-1], [peek.level for peek in peeks]

    denied, levels = run(main())
    assert denied.status == 429 and json.loads(denied.body)["violated-policies"] == ["minute"]
    assert denied.rate_limit == ('"burst";q=5;w=300, "minute";q=1;w=600, "day";q=100;w=600000', '"minute";r=0;t=600')
    assert denied["retry-after"] == "600" and levels == [1, 1, 1]


def test_retry_after_is_the_longest_of_all_policies_that_deny(asgi, throttler):
    app = three_policies(asgi, throttler, (1, 5, 1))
    _, denied = run(ask_all(app, 2))
    assert denied["retry-after"] == "6000" and json.loads(denied.body)["violated-policies"] == ["burst", "day"]
    assert denied["ratelimit"] == '"burst";r=0;t=60, "day";r=0;t=6000'


def test_a_denial_from_memory_names_the_policy_that_is_known_to_be_full_and_no_other(asgi, package, redis_server):
    decisions = []

    async def main():
        async with package.connect(redis_server.url, timeout=10) as store:
            policies = [asgi.Policy(package.Throttler(store, capacity, 600, prefix="hot:"), name=name)
                        for name, capacity in (("burst", 5), ("minute", 1), ("day", 100))]
            app = asgi.RateLimit(hello, policies=policies, on_decision=lambda scope, decision: decisions.append(decision))
            responses = await ask_all(app, 3)
            return responses, store.stats(), [await policy.throttler.peek(policy.name + ":192.0.2.1") for policy in policies]

    (allowed, *denied), stats, peeks = run(main())
    assert allowed.status == 200 and stats["from_memory"] == 2
    for response in denied:
        assert response.status == 429 and json.loads(response.body)["violated-policies"] == ["minute"]
        assert response["ratelimit-policy"] == allowed["ratelimit-policy"]
        assert response["ratelimit"].startswith('"minute";r=0;t=') and "," not in response["ratelimit"]
        assert 590 < int(response["retry-after"]) <= 600
    assert [list(decision.results) for decision in decisions] == [["burst", "minute", "day"], ["minute"], ["minute"]]
    assert decisions[1].results["minute"].source == "memory" and decisions[1].denied_by == ("minute",)
    assert [peek.level for peek in peeks] == [1, 1, 1]


# Reads the reset from the fields of each form.
RESETS = {
    "draft-07": lambda response: response["ratelimit"].rpartition("reset=")[2],
    "draft-03": lambda response: response["ratelimit-reset"],
    "x": lambda response: response["x-ratelimit-reset"],
}


@pytest.mark.parametrize("form", RESETS)
@pytest.mark.parametrize("limits", [((1, 1), (1, 200)), ((1, 200), (1, 1))],
                         ids=["the second lasts longer", "the first lasts longer"])
def test_older_forms_show_the_denial_that_lasts_longest(asgi, throttler, form, limits):
    policies = [asgi.Policy(throttler(*limit), name=name) for limit, name in zip(limits, ("a", "b"))]
    _, denied = run(ask_all(asgi.RateLimit(hello, policies=policies, fields=form), 2))
    assert denied["retry-after"] == "200" == RESETS[form](denied)


@pytest.mark.parametrize("form", RESETS)
def test_older_forms_show_the_longest_denial_even_with_more_left(asgi, throttler, form):
    policies = [asgi.Policy(throttler(1, 60), name="a"), asgi.Policy(throttler(10, 60), name="b", cost=7)]
    _, denied = run(ask_all(asgi.RateLimit(hello, policies=policies, fields=form), 2))
    assert json.loads(denied.body)["violated-policies"] == ["a", "b"]  # three drops of "b" are left
    assert denied["retry-after"] == "240" == RESETS[form](denied)


@pytest.mark.parametrize("form", RESETS)
def test_older_forms_show_the_slowest_of_equally_full_policies(asgi, throttler, form):
    policies = [asgi.Policy(throttler(5, recharge), name=str(recharge)) for recharge in (60, 600, 6)]
    assert RESETS[form](run(ask(asgi.RateLimit(hello, policies=policies, fields=form)))) == "2400"


def test_retry_after_includes_the_block_of_a_later_policy(asgi, throttler):
    blocking = throttler(1, 60, 900)
    app = asgi.RateLimit(hello, policies=[asgi.Policy(throttler(1), name="a"), asgi.Policy(blocking, name="b")])

    async def main():
        await ask(app)
        await blocking.consume("b:192.0.2.1")
        return await ask(app)

    assert run(main())["retry-after"] == "900"


def test_a_policy_that_costs_nothing_counts_only_while_it_is_blocked(asgi, package, throttler):
    store = package.connect("memory:")
    free = throttler(10, 60, 900, url=store)
    app = asgi.RateLimit(hello, policies=[asgi.Policy(throttler(1, 1), name="a"), asgi.Policy(free, name="b", cost=0)])

    async def main():
        await throttler(20, 60, url=store).consume("b:192.0.2.1", 20)  # above the capacity of the other throttler
        await ask(app)
        denied = await ask(app)
        await free.consume("b:192.0.2.1")
        return denied, await ask(app)

    denied, blocked = run(main())
    assert denied["retry-after"] == "1" and json.loads(denied.body)["violated-policies"] == ["a"]
    assert blocked["retry-after"] == "900" and json.loads(blocked.body)["violated-policies"] == ["a", "b"]


@pytest.mark.parametrize("names", [("api", "api:admin"), ("a:b:c", "x", "a:b"), ("a", "a:")])
def test_names_that_could_make_the_same_key_are_rejected(asgi, throttler, names):
    policies = [asgi.Policy(throttler(5), name=name) for name in names]
    with pytest.raises(ValueError, match="is the beginning of"):
        asgi.RateLimit(hello, policies=policies)
    with pytest.raises(ValueError, match="is the beginning of"):
        asgi.RateLimit(hello, throttler(5), name=names[0], policies=policies[1:])


def test_prefixes_that_could_make_the_same_key_are_rejected(asgi, package, throttler):
    store = package.connect("memory:")
    policies = [asgi.Policy(throttler(5, prefix=prefix, url=store), name=name)
                for prefix, name in (("", "a"), ("a:", "b"), ("x", "c"))]
    with pytest.raises(ValueError, match="'a:', prefix and name of a policy, is the beginning of 'a:b:'"):
        asgi.RateLimit(hello, policies=policies[1::-1])
    asgi.RateLimit(hello, policies=policies[1:])
    other = asgi.Policy(package.Throttler("memory:", 5, 60.0, prefix="a:"), name="b")
    asgi.RateLimit(hello, policies=[policies[0], other])


def test_names_with_a_colon_are_accepted_if_no_keys_collide(asgi, throttler):
    policies = [asgi.Policy(throttler(5), name=name) for name in ("api:admin", "api:user", "apis", "a")]
    assert run(ask(asgi.RateLimit(hello, policies=policies))).status == 200


def test_policies_that_share_a_throttler_have_their_own_buckets(asgi, throttler):
    shared = throttler(10)
    app = asgi.RateLimit(hello, policies=[asgi.Policy(shared, name="a"), asgi.Policy(shared, name="b")])
    assert run(ask(app))["ratelimit"] == '"a";r=9;t=540, "b";r=9;t=540'


def test_an_unavailable_policy_leaves_the_others_in_force(asgi, throttler, closed_port):
    gone = asgi.Policy(throttler(url=f"redis://127.0.0.1:{closed_port}"), name="gone")
    app = asgi.RateLimit(hello, policies=[gone, asgi.Policy(throttler(1), name="there")])
    allowed, denied = run(ask_all(app, 2))
    assert allowed.status == 200 and allowed.rate_limit == ('"there";q=1;w=60', '"there";r=0;t=1')
    assert denied.status == 429 and denied.rate_limit == ('"there";q=1;w=60', '"there";r=0;t=60')
    app = asgi.RateLimit(hello, policies=[asgi.Policy(throttler(5), name="free"), gone], on_error="deny")
    assert run(ask(app)).status == 503
    assert run(app._policies[0].throttler.peek("free:192.0.2.1")).level == 0  # nothing was charged


def test_an_unavailable_later_policy_is_not_named_in_a_denial(asgi, throttler, closed_port):
    for on_error in ("report", "deny", "allow", "local"):
        gone = asgi.Policy(throttler(1, 6000, url=f"redis://127.0.0.1:{closed_port}", on_error=on_error), name="gone")
        app = asgi.RateLimit(hello, throttler(1), policies=[gone])

        async def main():
            await app._policies[0].throttler.consume("default:192.0.2.1")
            return await ask(app)

        denied = run(main())
        assert denied["retry-after"] == "60" and json.loads(denied.body)["violated-policies"] == ["default"]


@pytest.fixture
def shares(asgi, throttler, closed_port):
    """A middleware whose policies are answered locally. Each is (shares, capacity of a share, its recharge, cost)."""

    def make(*limits):
        url = f"redis://127.0.0.1:{closed_port}"
        return asgi.RateLimit(hello, policies=[
            asgi.Policy(throttler(capacity * count, recharge / count, url=url, on_error="local", local_share=count),
                        name=name, cost=cost)
            for name, (count, capacity, recharge, cost) in zip("abc", limits)])

    return make


@pytest.mark.parametrize("limits, wait, violated", [
    (((2, 1, 60, 1), (10, 1, 600, 1)), "600", ["a", "b"]),
    (((2, 1, 60, 1), (10, 2, 600, 2)), "1200", ["a", "b"]),
    (((2, 1, 60, 1), (10, 3, 600, 2)), "600", ["a", "b"]),
    (((2, 1, 60, 1), (10, 2, 600, 1)), "60", ["a"]),
    (((2, 1, 60, 1), (10, 2, 600, 0)), "60", ["a"]),
    (((2, 2, 600, 1), (2, 1, 60, 1)), "60", ["b"]),
])
def test_retry_after_includes_local_shares(shares, limits, wait, violated):
    allowed, denied = run(ask_all(shares(*limits), 2))
    assert allowed.status == 200 and denied["retry-after"] == wait
    assert json.loads(denied.body)["violated-policies"] == violated


def test_a_denial_by_a_local_share_that_is_too_small_has_no_retry_after(shares):
    app = shares((2, 1, 60, 1), (10, 2, 600, 3))
    assert [r.status for r in run(ask_all(app, 2))] == [503, 503]
    first = app._policies[0].throttler
    assert run(first.consume("a:192.0.2.1")).level == 1
    denied = run(ask(app))
    assert denied["retry-after"] == "60" and json.loads(denied.body)["violated-policies"] == ["a"]


def test_a_denial_by_a_local_share_charges_no_other_share(shares):
    app = shares((2, 9, 600, 1), (2, 1, 60, 1))
    assert [r.status for r in run(ask_all(app, 4))] == [200, 429, 429, 429]
    assert run(app._policies[0].throttler.peek("a:192.0.2.1")).level == 1


def test_a_silent_store_has_the_strictest_policy_of_its_throttlers(asgi, package, closed_port):
    store = package.connect(f"redis://127.0.0.1:{closed_port}")

    def asked(*policies, **options):
        throttlers = [package.Throttler(store, 4, 60.0, on_error=policy, local_share=2) for policy in policies]
        app = asgi.RateLimit(hello, policies=[
            asgi.Policy(throttler, name=str(i)) for i, throttler in enumerate(throttlers)], **options)
        return [r.status for r in run(ask_all(app, 3))]

    assert asked("allow", "allow") == [200, 200, 200]
    assert asked("allow", "local") == [200, 200, 429]
    assert asked("allow", "deny", "local") == [503, 503, 503]
    assert asked("local", "report") == [200, 200, 200]
    assert asked("local", "report", on_error="deny") == [503, 503, 503]
