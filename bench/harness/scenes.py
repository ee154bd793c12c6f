"""The scenarios of bench/resilience and the figures that are asked of outrider in each."""

import collections
import json

from harness.contestants import Haproxy, Outrider
from harness.figures import failures, latencies, phase_figures, quantile
from harness.scenario import Phase, play

INTERVAL = 0.5  # of the health checks, in both configurations
SLOTS, SERVICE_MS = 8, 5
CAPACITY = SLOTS * 1000 / SERVICE_MS  # requests a second of the endpoint in `overload`
NO_RETRIES = ("route.retry", "route.hedge")


class Scenes:
    """Plays them for every contestant in turn and keeps what was measured."""

    def __init__(self, arena, rate, notice, out):
        self.arena, self.rate, self.notice, self.out = arena, rate, notice, out
        self.stretch = 0.5 if arena.quick else 1.0
        self.timeline = []  # recordings, for the picture
        self.rows = []      # phase figures
        self.checks = []    # (what, asked, label, measured, reached or None)

    def seconds(self, full):
        return full * self.stretch

    def play(self, name, contestant, count, rate, phases, settings=()):
        recording = play(self.arena, name, contestant, count, rate, phases, settings)
        for span in recording.spans:
            row = phase_figures(recording, span)
            self.rows.append(row)
            self.out({"part": "phase", **row, "recovery_seconds": finite(row["recovery_seconds"])})
        self.notice(f"{name}: {contestant.label} done")
        return recording

    def check(self, what, asked, label, measured, reached):
        """`reached`: None for a contestant of whom nothing is asked."""
        self.checks.append((what, asked, label, measured, reached))
        self.out({"part": "check", "what": what, "asked": asked, "proxy": label, "measured": measured,
                  "reached": reached})

    def both(self):
        present = [Outrider(self.arena.build), Haproxy()]
        return [contestant for contestant in present if not contestant.missing()]

    # --- one of three turns slow, fails, dies, returns; then all three ------------------------------------------
    def run_timeline(self):
        def one(**settings):
            return lambda services: services.each[1].control(**settings)

        phases = [
            Phase("healthy", self.seconds(5)),
            Phase("one slow", self.seconds(6), one(service_us=500_000)),
            Phase("one answers 500", self.seconds(6), one(service_us=SERVICE_MS * 1000, fail=500)),
            Phase("one dead", self.seconds(6), lambda services: services.each[1].kill()),
            Phase("it returns", self.seconds(8), lambda services: services.each[1].start()),
            Phase("all dead", self.seconds(5), lambda services: services.kill_all()),
            Phase("all return", self.seconds(8), lambda services: services.start_all()),
        ]
        for contestant in self.both():
            recording = self.play("timeline", contestant, 3, self.rate, phases)
            self.timeline.append(recording)
            asked = contestant.name == "outrider"
            self.check_outage(recording, asked)
            self.check_slow(recording, asked)
            if asked:
                self.explain(contestant, recording)

    def check_outage(self, recording, asked):
        rows = [phase_figures(recording, span) for span in recording.spans[-2:]]
        for row in rows:
            factor = row["amplification"]
            self.check(f"total outage, {row['phase']}: load offered to the endpoints / incoming", "at most 1.2",
                       recording.label, f"{factor:.2f}", factor <= 1.2 if asked else None)
        seconds = rows[-1]["recovery_seconds"]
        self.check("total outage: 99 of 100 succeed again, after the endpoints listen",
                   f"at most {2 * INTERVAL:g} s (two health intervals)", recording.label, f"{seconds:.1f} s",
                   seconds <= 2 * INTERVAL if asked else None)

    def check_slow(self, recording, asked):
        healthy, slow = (phase_figures(recording, span) for span in recording.spans[:2])
        factor = slow["p99_ms"] / healthy["p99_ms"]
        failed = failures(recording, recording.spans[1:2])
        self.check("one of three slows 5 to 500 ms: p99 of what succeeds / healthy p99", "at most 3", recording.label,
                   f"{factor:.1f} ({slow['p99_ms']:.0f} / {healthy['p99_ms']:.1f} ms; {failed:,} failed)",
                   factor <= 3 if asked else None)

    def explain(self, contestant, recording):
        """Why outrider answered what was no success, by its own access log."""
        reasons = collections.Counter()
        with open(contestant.access, errors="replace") as lines:
            for line in lines:
                if '"status":200' not in line:
                    entry = json.loads(line)
                    reasons[(entry["status"], entry["flags"] or "-", entry["attempts"])] += 1
        for (status, flags, attempts), count in reasons.most_common():
            self.out({"part": "reason", "scenario": recording.scenario, "status": status, "flags": flags,
                      "attempts": attempts, "count": count})
            self.notice(f"  outrider's log: {count} x {status}, flags {flags}, attempts {attempts}")

    # --- kill -9 ------------------------------------------------------------------------------------------------
    def run_kill(self):
        phases = []
        for turn in range(2 if self.arena.quick else 6):
            at = turn % 3
            phases += [Phase(f"kill {at + 1}", 1.5, lambda services, at=at: services.each[at].kill()),
                       Phase(f"start {at + 1}", 2.0, lambda services, at=at: services.each[at].start())]
        for contestant in self.both():
            recording = self.play("kill", contestant, 3, self.rate, phases)
            failed = failures(recording, recording.spans)
            self.check(f"kill -9 of one of three, {len(phases) // 2} times: failed responses", "0", recording.label,
                       f"{failed} of {len(recording.requests):,}",
                       failed == 0 if contestant.name == "outrider" else None)
            if contestant.name == "outrider":
                self.explain(contestant, recording)

    # --- one answers 500 to everything --------------------------------------------------------------------------
    def run_errors(self):
        def fail(services):
            services.each[1].control(fail=500)

        phases = [Phase("healthy", self.seconds(2)), Phase("one answers 500", self.seconds(6), fail)]
        build = self.arena.build
        bare, bare_asked = "no retries, failures seen", "at most consecutive_failures (5), and what is in work"
        contestants = [
            (Outrider(build, "outrider, no retries", without=NO_RETRIES), 5, bare, bare_asked),
            (Haproxy("haproxy, no retries", retries=False), 5, bare, bare_asked),
            (Outrider(build), 0, "with retries, failures seen", "0"),
            (Haproxy(), 0, "with retries, failures seen", "0"),
        ]
        for contestant, bound, what, asked in contestants:
            if contestant.missing():
                continue
            recording = self.play("errors", contestant, 3, self.rate, phases)
            failed = failures(recording, recording.spans[1:])
            # What was in work when it began to fail still succeeds, and so interrupts the failures in a row.
            in_work = max(row[5] for row in recording.received[1])
            allowed = in_work if "no retries" in what else 0
            self.check(f"one of three answers 500 to everything: {what}", asked, recording.label,
                       f"{failed} (up to {in_work} in work there)" if allowed else str(failed),
                       failed <= bound + allowed if contestant.name == "outrider" else None)

    # --- overload -----------------------------------------------------------------------------------------------
    def run_overload(self):
        phases = [Phase("half its capacity", self.seconds(6)),
                  Phase("twice its capacity", self.seconds(8), extra_rate=1.5 * CAPACITY),
                  Phase("half again", self.seconds(6))]
        build = self.arena.build
        contestants = [
            Outrider(build),
            Outrider(build, "outrider, no limit", without=("route.concurrency",)),
            Haproxy("haproxy, maxconn by hand", limit="timeout queue 5ms", server_options=f"maxconn {SLOTS}"),
            Haproxy(),
        ]
        settings = {"slots": SLOTS, "service_us": SERVICE_MS * 1000}
        for contestant in contestants:
            if contestant.missing():
                continue
            recording = self.play("overload", contestant, 1, CAPACITY / 2, phases, settings)
            self.check_overload(recording, contestant.label == "outrider")
            if contestant.label == "outrider":
                self.explain(contestant, recording)

    def check_overload(self, recording, asked):
        healthy, overload = recording.spans[:2]
        requests = recording.within(overload)
        normal = quantile(latencies(recording.within(healthy)), 0.99)
        good, shed = latencies(requests), latencies(requests, 503)
        seconds = (overload.end - overload.begin) / 1e9
        p99 = quantile(good, 0.99) or float("inf")  # no success at all
        self.check("twice what one endpoint can do: p99 of what succeeds / healthy p99", "at most 3", recording.label,
                   f"{p99 / normal:.1f} ({p99:.1f} / {normal:.1f} ms; {len(good) / seconds:,.0f} of {CAPACITY:,.0f}/s)",
                   p99 / normal <= 3 if asked else None)
        if shed:
            within = sum(1 for latency in shed if latency < 5) / len(shed)
            self.check("twice what one endpoint can do: time of the 503s, p99", "under 5 ms", recording.label,
                       f"{quantile(shed, 0.99):.1f} ms (max {shed[-1]:.1f}; {within:.2%} under 5; {len(shed):,})",
                       quantile(shed, 0.99) < 5 if asked else None)


def finite(seconds):
    """JSON has no infinity."""
    return "never" if seconds == float("inf") else seconds


def scene_names():
    return [name.removeprefix("run_") for name in vars(Scenes) if name.startswith("run_")]

