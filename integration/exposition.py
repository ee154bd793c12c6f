"""Strict readers of Prometheus text 0.0.4 and OpenMetrics 1.0.0: what a scraper would refuse, they refuse."""
import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|Inf)|NaN"
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ({NUMBER})\Z")
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}


class Exposition:
    """`samples`: {(name, frozenset of label pairs): value}; `types`: {family: type}."""

    def __init__(self, text, open_metrics):
        self.samples = {}
        self.types = {}
        self.order = []
        self.open_metrics = open_metrics
        assert text.endswith("\n"), "the last line ends"
        assert "\r" not in text
        lines = text[:-1].split("\n")
        if open_metrics:
            assert lines.pop() == "# EOF", "OpenMetrics ends with # EOF"
        assert "# EOF" not in lines
        self._family = None
        helped = None
        seen_families = set()
        for line in lines:
            assert line, "no empty lines"
            if line.startswith("# HELP "):
                helped, text_of_help = re.match(rf"# HELP ({NAME}) (.+)\Z", line).groups()
                assert "\n" not in text_of_help
                continue
            if line.startswith("# TYPE "):
                family, kind = re.match(rf"# TYPE ({NAME}) (counter|gauge|histogram)\Z", line).groups()
                assert family == helped, f"HELP and TYPE go together: {line}"
                assert family not in seen_families, f"{family} comes in one block"
                seen_families.add(family)
                self.types[family] = kind
                self._family, self._kind = family, kind
                if kind == "counter":
                    assert family.endswith("_total") != open_metrics, f"a counter's family name: {line}"
                continue
            assert not line.startswith("#"), line
            self._sample(line)
        self._check_histograms()

    def _sample(self, line):
        match = SAMPLE.match(line)
        assert match, f"no sample: {line!r}"
        name, labels = match[1], match[2] or ""
        pairs = re.findall(LABEL, labels)
        assert len({key for key, _ in pairs}) == len(pairs), f"a label twice: {line}"
        suffixes = SUFFIXES[self._kind] if not (self._kind == "counter" and not self.open_metrics) else [""]
        assert name in [self._family + suffix for suffix in suffixes], f"{line} under {self._family}"
        unescaped = frozenset((key, re.sub(r'\\(.)', lambda m: {"n": "\n"}.get(m[1], m[1]), value)) for key, value in pairs)
        assert (name, unescaped) not in self.samples, f"twice: {line}"
        value = float(match.groups()[-1])
        assert not math.isnan(value) or self._kind == "gauge"
        assert self._kind == "gauge" or value >= 0, line
        self.samples[name, unescaped] = value
        self.order.append((name, dict(pairs), value))

    def _check_histograms(self):
        series = {}
        for name, labels, value in self.order:
            if name.endswith("_bucket") and self.types.get(name[:-7]) == "histogram":
                rest = frozenset((k, v) for k, v in labels.items() if k != "le")
                series.setdefault((name[:-7], rest), []).append((float(labels["le"].replace("Inf", "inf")), value))
        for (family, rest), buckets in series.items():
            bounds = [bound for bound, _ in buckets]
            counts = [count for _, count in buckets]
            assert bounds == sorted(set(bounds)), f"{family}: bounds rise"
            assert counts == sorted(counts), f"{family}: buckets are cumulative"
            assert bounds[-1] == math.inf, f"{family}: ends with +Inf"
            assert counts[-1] == self.samples[family + "_count", rest], f"{family}: +Inf is the count"
            assert (family + "_sum", rest) in self.samples

    def value(self, name, **labels):
        return self.samples[name, frozenset(labels.items())]

    def sum(self, name, **labels):
        wanted = set(labels.items())
        return sum(value for (have, pairs), value in self.samples.items() if have == name and wanted <= pairs)


def scrape(sidecar, accept=None, port=None):
    """Asks for the metrics and reads them strictly in the format that the answer claims."""
    answer = sidecar.admin("/metrics", fields=[("Accept", accept)] if accept else (), port=port)
    assert answer.status == 200
    kind = answer.one("content-type")
    if kind == b"application/openmetrics-text; version=1.0.0; charset=utf-8":
        return Exposition(answer.body.decode(), open_metrics=True)
    assert kind == b"text/plain; version=0.0.4; charset=utf-8", kind
    return Exposition(answer.body.decode(), open_metrics=False)
