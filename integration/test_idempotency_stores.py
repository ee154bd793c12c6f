"""What the promise stands on: processes that are killed, stores that fill up, hang or are damaged, sidecars that share one."""
import contextlib
import errno
import os
import shutil
import signal
import subprocess

import pytest

from harness import toml_table
from keyed import (StoreKind, assert_replay, digest_of, forget, fresh_key, key_path, keyed_body, keyed_route, look, post,
                   post_bytes, posted, problem_of, sidecar_with, state_of, store_page,
                   wait_for_store, waiting)
from resilience import Gate, endpoints, heads, scrape
from sidecar import Sidecar, accepts, cluster, wait_until
from wire import RawClient

DURABLE = ("log", "redis")


def numbered(size=0):
    count = iter(range(1, 1 << 30))

    def answer(exchange):
        exchange.read_body()
        exchange.reply(body=b"execution %d" % next(count) + b"." * size)

    return answer


@pytest.fixture(params=DURABLE)
def store(request):
    with StoreKind(request.param) as one:
        yield one


def restart(sidecar):
    """kill -9 and a new process with the same file."""
    sidecar.kill()
    return start_again(sidecar)


def start_again(sidecar):
    sidecar.start()
    return wait_for_store(sidecar) if "warm-up" in sidecar.body else sidecar


# ---- kill -9 ---------------------------------------------------------------------------------------------------------------


def test_done_keys_survive_kill_9(store):
    with endpoints(numbered()) as (app,), sidecar_with(store, keyed_body(app.port), workers=2) as sidecar:
        firsts = {key: post(sidecar, key) for key in (fresh_key() for _ in range(50))}
        restart(sidecar)
        for key, first in firsts.items():
            assert_replay(post(sidecar, key), first)
        assert post(sidecar, key, body=b"else").status == 422, "the fingerprint as well"
        assert heads(app) == 50


def test_keys_of_a_store_in_memory_do_not():
    """What its name says: so nobody believes otherwise."""
    with StoreKind("memory") as store, endpoints(numbered()) as (app,), sidecar_with(store, keyed_body(app.port)) as sidecar:
        key = fresh_key()
        assert post(sidecar, key).body == b"execution 1"
        restart(sidecar)
        assert post(sidecar, key).body == b"execution 2"


def test_kill_9_while_the_application_is_at_it():
    gate = Gate(numbered())
    with StoreKind("log") as store, endpoints(gate) as (app,), sidecar_with(store, keyed_body(app.port)) as sidecar:
        key = fresh_key()
        with posted(sidecar, key):
            wait_until(lambda: gate.waiting == 1)
            restart(sidecar)
        gate.open()
        problem = problem_of(post(sidecar, key), 409, "unknown")
        assert "lost before the answer" in problem["detail"]
        assert "restarted" in look(sidecar, key)["why"]
        assert heads(app) == 1
        restart(sidecar)
        problem_of(post(sidecar, key), 409, "unknown")
        assert forget(sidecar, digest_of(key)).status == 200
        restart(sidecar)
        assert state_of(sidecar, key) == "absent", "what an operator decides is durable"
        first = post(sidecar, key)
        assert first.body == b"execution 2"
        assert_replay(post(sidecar, key), first)


def test_reexecution_after_kill_9():
    gate = Gate(numbered())
    with StoreKind("log") as store, endpoints(gate) as (app,), \
            sidecar_with(store, keyed_body(app.port, {"on_unknown": "reexecute"})) as sidecar:
        key = fresh_key()
        with posted(sidecar, key):
            wait_until(lambda: gate.waiting == 1)
            restart(sidecar)
        gate.open()
        first = post(sidecar, key)
        assert (first.status, first.all("idempotent-replayed")) == (200, [])
        assert_replay(post(sidecar, key), first)
        assert heads(app) == 2


def test_a_released_key_is_absent_after_kill_9(store):
    with sidecar_with(store, keyed_body(1), workers=2) as sidecar:
        key = fresh_key()
        assert post(sidecar, key).status == 502
        restart(sidecar)
        assert state_of(sidecar, key) == "absent"


# ---- sharing ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def sharing(count, body):
    with StoreKind("redis") as store, contextlib.ExitStack() as stack:
        yield store, [stack.enter_context(sidecar_with(store, body, workers=2)) for _ in range(count)]


def test_sidecars_share_a_redis():
    gate = Gate(numbered())
    with endpoints(gate) as (app,), sharing(3, keyed_body(app.port)) as (_, sidecars):
        key = fresh_key()
        with posted(sidecars[0], key) as client, posted(sidecars[1], key) as second, posted(sidecars[2], key) as third:
            clients = [client, second, third]
            wait_until(lambda: gate.waiting == 1 and sum(waiting(sidecar) for sidecar in sidecars) == 2)
            gate.open()
            answers = [one.response() for one in clients]
        assert {answer.body for answer in answers} == {b"execution 1"}
        assert sorted(len(answer.all("idempotent-replayed")) for answer in answers) == [0, 1, 1]
        assert [post(sidecar, key).body for sidecar in sidecars] == [b"execution 1"] * 3
        assert post(sidecars[2], key, body=b"else").status == 422
        assert heads(app) == 1


def test_the_end_of_a_sidecar_that_shares_a_redis():
    """Its keys are in flight until their lease is over, then unknown: nobody else runs them."""
    gate = Gate(numbered())
    with endpoints(gate) as (app,), sharing(2, keyed_body(app.port, {"in_flight": "conflict"}, timeout="500ms")) as (_, (one, other)):
        key = fresh_key()
        with posted(one, key):
            wait_until(lambda: gate.waiting == 1)
            one.kill()
        problem_of(post(other, key), 409, "in-flight")
        wait_until(lambda: state_of(other, key) == "unknown", 20, "the end of the lease")
        problem_of(post(other, key), 409, "unknown")
        gate.open()
        assert heads(app) == 1
        assert forget(other, digest_of(key)).status == 200
        assert post(other, key).body == b"execution 2"


def test_redis_is_killed_and_comes_back():
    with endpoints(numbered()) as (app,), sharing(2, keyed_body(app.port)) as (store, sidecars):
        firsts = {key: post(sidecars[0], key) for key in (fresh_key() for _ in range(20))}
        store.redis.kill()
        for sidecar in sidecars:
            problem_of(post(sidecar, fresh_key()), 503, "store")
        assert post(sidecars[0]).status == 200, "what has no key needs no store"
        wait_until(lambda: not store_page(sidecars[0])["ok"])
        assert sidecars[0].admin(key_path("x")).status == 503
        store.redis.start()
        for sidecar in sidecars:
            wait_for_store(sidecar)
            for key, first in firsts.items():
                assert_replay(post(sidecar, key), first)
        wait_until(lambda: store_page(sidecars[0])["ok"])


def test_redis_hangs():
    with StoreKind("redis") as store, endpoints(numbered()) as (app,):
        store.keys["operation_timeout"] = "100ms"
        with sidecar_with(store, keyed_body(app.port)) as sidecar:
            key = fresh_key()
            first = post(sidecar, key)
            store.redis.signal(signal.SIGSTOP)
            try:
                problem_of(post(sidecar, key), 503, "store")
            finally:
                store.redis.signal(signal.SIGCONT)
            wait_for_store(sidecar)
            assert_replay(post(sidecar, key), first)
            assert scrape(sidecar).sum("outrider_idempotency_store_errors_total") >= 1


def test_without_redis_requests_go_unprotected_if_asked_to():
    with StoreKind("redis") as store, endpoints(numbered()) as (app,), \
            sidecar_with(store, keyed_body(app.port, {"on_store_error": "forward"})) as sidecar:
        store.redis.kill()
        key = fresh_key()
        assert [post(sidecar, key).body for _ in range(2)] == [b"execution 1", b"execution 2"]
        lines = wait_until(lambda: len(found := [one for one in sidecar.access_lines() if one["path"] == "/pay"]) == 2 and found, 20)
        assert [(line["idempotency"], line["flags"]) for line in lines] == [("unprotected", "IS")] * 2


# ---- stores that are full --------------------------------------------------------------------------------------------------


def post_until_store_fails(sidecar, most=20_000):
    """Small requests with keys of their own on one connection, until one of them finds the store full; their keys."""
    keys = []
    with RawClient(sidecar.port) as client:
        for _ in range(most):
            keys.append(fresh_key())
            answer = client.request(post_bytes(keys[-1]))
            if answer.status == 503 or (len(keys) % 50 == 0 and outcomes(sidecar).get("unprotected")):
                return keys
            assert answer.status == 200, answer
    raise AssertionError(f"it took {most} keys")


@pytest.mark.parametrize("policy", ["reject", "forward"])
def test_a_store_in_memory_that_is_full(policy):
    with StoreKind("memory", max_memory="1MiB") as store, endpoints(numbered()) as (app,), \
            sidecar_with(store, keyed_body(app.port, {"on_store_error": policy})) as sidecar:
        keys = post_until_store_fails(sidecar)
        first = post(sidecar, keys[0])
        assert (first.body, first.one("idempotent-replayed")) == (b"execution 1", b"true"), "what it has it gives"
        key = fresh_key()
        answer = post(sidecar, key)
        if policy == "reject":
            problem = problem_of(answer, 503, "store")
            assert "full" in problem["detail"] and int(answer.one("retry-after")) >= 1
        else:
            assert answer.status == 200 and post(sidecar, key).body != answer.body
        page = store_page(sidecar)
        assert page["memory_bytes"] <= page["memory_bytes_max"] == 1 << 20
        for one in keys[:5]:
            assert forget(sidecar, digest_of(one)).status == 200
        first = post(sidecar, key := fresh_key())
        assert_replay(post(sidecar, key), first)


def test_answers_beyond_the_memory_are_not_kept_but_their_keys_are():
    """A claim is small: there is room for it long after there is none for answers. A duplicate never runs."""
    with StoreKind("memory", max_memory="1MiB") as store, endpoints(numbered(60_000)) as (app,), \
            sidecar_with(store, keyed_body(app.port, {"max_response": "128KiB"})) as sidecar:
        for _ in range(30):
            first = post(sidecar, key := fresh_key())
            assert first.status == 200 and first.body.endswith(b".")
        problem_of(post(sidecar, key), 409, "done")
        assert heads(app) == 30
        assert store_page(sidecar)["memory_bytes"] <= 1 << 20


def outcomes(sidecar):
    metrics = scrape(sidecar)
    return {dict(pairs)["outcome"]: value for (name, pairs), value in metrics.samples.items()
            if name == "outrider_idempotency_requests_total" and value}


def test_nobody_waits_beyond_max_waiting():
    gate = Gate(numbered())
    with StoreKind("memory", max_waiting=2) as store, endpoints(gate) as (app,), \
            sidecar_with(store, keyed_body(app.port), workers=2) as sidecar:
        key = fresh_key()
        with posted(sidecar, key) as client, posted(sidecar, key) as second:
            wait_until(lambda: gate.waiting == 1 and waiting(sidecar) == 1)
            with posted(sidecar, key) as third:
                wait_until(lambda: waiting(sidecar) == 2)
                problem_of(post(sidecar, key), 409, "in-flight")
                gate.open()
                assert {client.response().body, second.response().body, third.response().body} == {b"execution 1"}


class SmallDisk:
    """A sidecar whose store lies on a file system of 4 MiB that nobody else sees; `fill` and `empty` change what is left of it."""

    def __init__(self, store, body):
        for tool in ("unshare", "mount"):
            if not shutil.which(tool):
                pytest.skip(f"no {tool} on this machine")
        script = f'mount --make-rprivate / && mount -t tmpfs -o size=4m none {store.directory} && exec "$@"'
        self.prefix = ["unshare", "-m", "sh", "-c", script, "sh"]
        trial = subprocess.run([*self.prefix, "true"], capture_output=True, text=True, timeout=20)
        if trial.returncode != 0:
            pytest.skip("no file system can be mounted here: " + trial.stderr.strip())
        self.sidecar = Sidecar(body + store.table(), prefix=self.prefix)
        self.directory = store.directory

    def __enter__(self):
        self.sidecar.start()
        self.inside = f"/proc/{self.sidecar.child.pid}/root{self.directory}"
        return self

    def __exit__(self, *_):
        self.sidecar.kill()

    def fill(self):
        with open(f"{self.inside}/filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def empty(self):
        os.unlink(f"{self.inside}/filler")


@pytest.mark.parametrize("policy", ["reject", "forward"])
def test_a_full_disk(policy):
    with StoreKind("log") as store, endpoints(numbered()) as (app,), \
            SmallDisk(store, keyed_body(app.port, {"on_store_error": policy})) as disk:
        sidecar = disk.sidecar
        key = fresh_key()
        first = post(sidecar, key)
        disk.fill()
        post_until_store_fails(sidecar)  # some room was written ahead
        assert_replay(post(sidecar, key), first)
        page = store_page(sidecar)
        assert not page["ok"] and "space" in page["problem"].lower(), page
        other = fresh_key()
        before = heads(app)
        answers = [post(sidecar, other) for _ in range(2)]
        if policy == "reject":
            for answer in answers:
                problem_of(answer, 503, "store")
                assert int(answer.one("retry-after")) >= 1
            assert heads(app) == before, "what cannot be claimed is not forwarded"
        else:
            assert [answer.status for answer in answers] == [200, 200]
            assert heads(app) == before + 2
        outcome = {"reject": "store_error", "forward": "unprotected"}[policy]
        wait_until(lambda: any((line["idempotency"], line["flags"]) == (outcome, "IS") for line in sidecar.access_lines()))
        disk.empty()
        wait_until(lambda: post(sidecar, fresh_key()).status == 200 and store_page(sidecar)["ok"], 10, "the return of the store")
        again = post(sidecar, late := fresh_key())
        assert_replay(post(sidecar, late), again)
        assert_replay(post(sidecar, key), first)
        assert scrape(sidecar).sum("outrider_idempotency_store_errors_total") >= 1
        assert "can be written again" in sidecar.log(limit=None)


def test_an_answer_that_cannot_be_recorded_is_given_all_the_same():
    """The disk fills while the application is at it. The client has its answer; what duplicates get is never a second execution."""
    gate = Gate(numbered(100_000))
    with StoreKind("log") as store, endpoints(gate) as (app,), SmallDisk(store, keyed_body(app.port, {"max_response": "512KiB"})) as disk:
        sidecar = disk.sidecar
        keys = [fresh_key() for _ in range(8)]
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(posted(sidecar, key, "/" + key)) for key in keys]
            wait_until(lambda: gate.waiting == len(keys))
            disk.fill()
            gate.open()
            answers = [client.response() for client in clients]
        assert [answer.status for answer in answers] == [200] * len(keys)
        lines = wait_until(lambda: len(found := sidecar.access_lines()) == len(keys) and found)
        lost = [line["path"][1:] for line in lines if "IS" in (line["flags"] or "")]
        assert lost, "eight times 100,000 bytes fit into what was left"
        for key in keys:
            again = post(sidecar, key, "/" + key)
            assert again.status in (200, 409, 503), again
            assert again.status != 200 or again.one("idempotent-replayed") == b"true"
        assert heads(app) == len(keys)


# ---- how a start fails -----------------------------------------------------------------------------------------------------


def refused_start(store, body=None):
    """What a start that must fail says."""
    sidecar = Sidecar((body or keyed_body(1)) + store.table())
    with pytest.raises(RuntimeError) as refused:
        sidecar.start()
    shutil.rmtree(sidecar.directory, ignore_errors=True)
    text = str(refused.value)
    assert f"{sidecar.name} ended with 1 at its start" in text, text
    return text


def test_a_directory_belongs_to_one_sidecar():
    with StoreKind("log") as store, endpoints(numbered()) as (app,), sidecar_with(store, keyed_body(app.port)) as sidecar:
        first = post(sidecar, key := fresh_key())
        said = refused_start(store)
        assert f"{store.directory} is locked by" in said and "is another outrider using it?" in said
        assert_replay(post(sidecar, key), first)
        restart(sidecar)
        assert_replay(post(sidecar, key), first)


def test_a_file_in_place_of_the_directory():
    with StoreKind("log") as store:
        shutil.rmtree(store.directory)
        store.directory.write_text("")
        said = refused_start(store)
        assert f"cannot use {store.directory}" in said and "must name a directory" in said
        store.directory.unlink()
        store.directory.mkdir()


def test_a_directory_that_is_made():
    with StoreKind("log") as store, endpoints(numbered()) as (app,):
        store.directory.rmdir()
        with sidecar_with(store, keyed_body(app.port)) as sidecar:
            first = post(sidecar, key := fresh_key())
            assert_replay(post(sidecar, key), first)
        assert list(store.directory.glob("*.wal"))


@contextlib.contextmanager
def filled_log(count=200):
    """A store with records, and the process that wrote them killed: its segment."""
    with StoreKind("log") as store, endpoints(numbered(1000)) as (app,):
        with sidecar_with(store, keyed_body(app.port)) as sidecar:
            keys = [fresh_key() for _ in range(count)]
            with RawClient(sidecar.port) as client:
                for key in keys:
                    assert client.request(post_bytes(key)).status == 200
        (segment,) = store.directory.glob("*.wal")
        yield store, segment, app, keys


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


def test_a_log_of_another_version():
    with filled_log(1) as (store, segment, _, _):
        flip(segment, 8)
        said = refused_start(store)
        assert segment.name in said and "version" in said, said


def test_damage_in_the_middle_is_not_guessed_about():
    with filled_log() as (store, segment, _, _):
        flip(segment, 48 + 24 + 60)  # in the first record's payload
        said = refused_start(store)
        assert segment.name in said and "offset" in said, said
        flip(segment, 48 + 24 + 60)


def test_a_torn_end_is_cut_off():
    """The last record was not written completely: nothing depended on it, and all before it is there."""
    with filled_log(20) as (store, segment, app, keys):
        data = segment.read_bytes().rstrip(b"\0")
        segment.write_bytes(data[:-500])
        with sidecar_with(store, keyed_body(app.port)) as sidecar:
            assert "are cut off" in sidecar.log(limit=None)
            for key in keys[:-1]:
                assert state_of(sidecar, key) == "done"
            assert state_of(sidecar, keys[-1]) == "unknown", "its claim is there, its answer is not"
            problem_of(post(sidecar, keys[-1]), 409, "unknown")
            assert heads(app) == 20


def test_a_route_whose_store_is_not_there():
    sidecar = Sidecar(keyed_body(1))
    with pytest.raises(RuntimeError) as refused:
        sidecar.start()
    assert "route[1].idempotency.store" in str(refused.value) and '"keys"' in str(refused.value).replace("'", '"')
    shutil.rmtree(sidecar.directory, ignore_errors=True)


def test_a_reload_may_add_a_store():
    with StoreKind("memory") as store, endpoints(numbered()) as (app,), sidecar_with(store, keyed_body(app.port)) as sidecar:
        first = post(sidecar, key := fresh_key())
        more = toml_table("[store.more]", {"kind": "memory"})
        code, answer = sidecar.reload(keyed_route("other", {"store": "more"}) + cluster("app", app.port) + store.table() + more)
        assert code == 200, answer
        assert [post(sidecar, key).body for _ in range(2)] == [b"execution 2"] * 2
        assert {one["store"] for one in sidecar.json("/idempotency")["stores"]} == {"keys", "more"}
        assert sidecar.reload(keyed_body(app.port) + store.table() + more)[0] == 200
        assert_replay(post(sidecar, key), first)


# ---- the end ---------------------------------------------------------------------------------------------------------------


def test_a_drain_waits_for_an_exchange_whose_client_has_left(store):
    gate = Gate(numbered())
    with endpoints(gate) as (app,), sidecar_with(store, keyed_body(app.port), drain={"timeout": "60s"}) as sidecar:
        key = fresh_key()
        client = RawClient(sidecar.port)
        client.send(post_bytes(key))
        wait_until(lambda: gate.waiting == 1)
        client.reset()
        wait_until(lambda: scrape(sidecar).sum("outrider_http_downstream_connections") == 0)
        sidecar.signal(signal.SIGTERM)
        wait_until(lambda: not accepts(sidecar.port), 10, "the listener's end")
        assert sidecar.alive(), "an exchange is under way"
        gate.open()
        assert sidecar.wait() == 0, sidecar.log()
        sidecar.stop_checks()
        sidecar.kill()
        start_again(sidecar)
        answer = post(sidecar, key)
        assert (answer.body, answer.one("idempotent-replayed")) == (b"execution 1", b"true")
        assert heads(app) == 1


def test_the_end_of_the_drains_time_leaves_the_outcome_unknown():
    gate = Gate(numbered())
    with StoreKind("log") as store, endpoints(gate) as (app,), \
            sidecar_with(store, keyed_body(app.port), drain={"timeout": "100ms"}) as sidecar:
        key = fresh_key()
        with posted(sidecar, key), posted(sidecar, key):
            wait_until(lambda: gate.waiting == 1 and waiting(sidecar) == 1)
            sidecar.signal(signal.SIGTERM)
            sidecar.wait()
            sidecar.stop_checks()
        sidecar.kill()
        sidecar.start()
        gate.open()
        problem_of(post(sidecar, key), 409, "unknown")
        assert heads(app) == 1
