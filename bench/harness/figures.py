"""What a recording says: success, latency, load and recovery of each phase."""

from harness.services import NANOSECONDS

STEADY = 5  # buckets of 100 ms in a row that make a recovery


def quantile(ordered, fraction):
    """Of a sorted list; nothing when it is empty."""
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else None


def latencies(requests, status=200):
    """Milliseconds from when each was due, sorted."""
    return sorted(latency / 1e6 for _, latency, answered in requests if answered == status)


def phase_figures(recording, span):
    requests = recording.within(span)
    good = latencies(requests)
    statuses = {}
    for _, _, status in requests:
        statuses[status] = statuses.get(status, 0) + 1
    seconds = (span.end - span.begin) / NANOSECONDS
    came = recording.came(span)
    offered = max(span.attempts, sum(came))  # haproxy does not count what leaves its queue, services no refused connect
    return {
        "scenario": recording.scenario, "proxy": recording.label, "phase": span.name, "seconds": round(seconds, 2),
        "requests": len(requests), "statuses": {str(key): statuses[key] for key in sorted(statuses)},
        "success": len(good) / len(requests) if requests else None,
        "p50_ms": quantile(good, 0.5), "p99_ms": quantile(good, 0.99), "max_ms": good[-1] if good else None,
        "received_per_second": [count / seconds for count in came],
        "amplification": offered / len(requests) if requests else None,
        "recovery_seconds": recovery(recording, span), "foreign": recording.foreign,
    }


def failures(recording, spans):
    return sum(1 for span in spans for request in recording.within(span) if request[2] != 200)


def recovery(recording, span):
    """Seconds from when the services listened again until there was a success and, from then on for half a second,
    99 of 100 of the requests that came due succeeded (perhaps after they were held back).
    Nothing: no service was started in this phase. Infinite: it never came to that."""
    if span.returned is None:
        return None
    width = NANOSECONDS / 10
    count = max(1, int((span.end - span.returned) / width))
    asked, good = [0] * count, [0] * count
    for due, _, status in recording.within(span):
        at = int((due - span.returned) // width)
        if 0 <= at < count:
            asked[at] += 1
            good[at] += status == 200
    answered = min((due + latency for due, latency, status in recording.requests
                    if status == 200 and span.returned < due + latency < span.end), default=float("inf"))
    for first in range(count - STEADY + 1):
        if all(good[i] >= 0.99 * asked[i] for i in range(first, first + STEADY)):
            return max(first * width, answered - span.returned) / NANOSECONDS
    return float("inf")


def per_bucket(recording, width=0.1):
    """[(seconds from the first phase, p50, p99, share that failed)] of the requests due in each bucket."""
    begin, end = recording.spans[0].begin, recording.spans[-1].end
    buckets = [[] for _ in range(int((end - begin) / (width * NANOSECONDS)) + 1)]
    for request in recording.requests:
        if begin <= request[0] < end:
            buckets[int((request[0] - begin) / (width * NANOSECONDS))].append(request)
    rows = []
    for i, requests in enumerate(buckets):
        good = latencies(requests)
        failed = 1 - len(good) / len(requests) if requests else None
        rows.append((i * width, quantile(good, 0.5), quantile(good, 0.99), failed))
    return rows
