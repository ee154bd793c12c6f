"""How long nobody can write after the leader was killed: puts at both survivors every few milliseconds, until one succeeds."""

import asyncio
import contextlib
import time

EVERY = 0.010      # seconds between two puts
BEFORE = 0.3       # puts already run when the leader is killed
GIVE_UP = 30.0
BODY = b'{"key":"a2lsbA==","value":"eA=="}'
REQUEST = (b"POST /v3/kv/put HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
           % (len(BODY), BODY))


async def put(port):
    """True: it was acknowledged."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        return (await reader.readline()).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
    finally:
        if writer is not None:
            writer.close()


async def probe(ports, kill):
    """Seconds from kill() to the end of the first successful put that began after it."""
    killed = None
    done = asyncio.get_running_loop().create_future()

    async def one(port):
        begun = time.monotonic()
        if await put(port) and killed is not None and begun > killed and not done.done():
            done.set_result(time.monotonic() - killed)

    tasks = set()
    start = time.monotonic()
    number = 0
    while not done.done() and time.monotonic() - start < GIVE_UP:
        task = asyncio.create_task(one(ports[number % len(ports)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        if killed is None and time.monotonic() - start >= BEFORE:
            killed = kill()
        await asyncio.sleep(max(0, start + number * EVERY - time.monotonic()))
    for task in list(tasks):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    return done.result() if done.done() else GIVE_UP


def without_writer(cluster):
    """Kills the leader, starts it again when another has taken its place; the seconds in between."""
    leader = cluster.leader()
    ports = [node.port for node in cluster.nodes if node is not leader]
    seconds = asyncio.run(probe(ports, lambda: cluster.kill_node(leader)))
    cluster.start_node(leader)
    cluster.leader()
    return seconds
