#include "base/metrics.h"

#include <atomic>
#include <barrier>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/process_metrics.h"

namespace outrider {
namespace {
using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kText = ExpositionFormat::kText;
constexpr auto kOpen = ExpositionFormat::kOpenMetrics;

// A strict reader of the OpenMetrics 1.0.0 grammar as far as we use it; returns the first fault.
class OpenMetricsChecker {
  public:
    std::string check(const std::string& text) {
        if (!text.ends_with("# EOF\n")) return "does not end with # EOF";
        std::istringstream lines(text);
        std::string line;
        while (std::getline(lines, line)) {
            if (eof_) return "something follows # EOF";
            if (const std::string fault = check_line(line); !fault.empty()) {
                return fault + ": " + line;
            }
        }
        return {};
    }

  private:
    std::string check_line(const std::string& line) {
        static const std::regex kMeta(R"(# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*))");
        static const std::string kLabel = R"re([a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\["n\\])*")re";
        static const std::regex kSample(R"re(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)re" + kLabel + "(?:," + kLabel +
                                        R"re()*\})? (-?\d+(?:\.\d+)?(?:e[+-]\d+)?|NaN|[+-]Inf))re");
        std::smatch m;
        if (line == "# EOF") {
            eof_ = true;
            return {};
        }
        if (std::regex_match(line, m, kMeta)) return check_meta(m[1], m[2], m[3]);
        if (!std::regex_match(line, m, kSample)) return "no sample";
        return check_sample(m[1], m[2]);
    }

    std::string check_meta(const std::string& what, const std::string& name, const std::string& rest) {
        if (name != family_) {
            if (!families_.insert(name).second) return "family split";
            family_ = name;
            type_.clear();
            help_ = false;
        }
        if (what == "TYPE") {
            if (!type_.empty()) return "two TYPE lines";
            if (rest != "counter" && rest != "gauge" && rest != "histogram") return "type unknown";
            type_ = rest;
        } else {
            if (help_) return "two HELP lines";
            help_ = true;
            static const std::regex kHelp(R"re((?:[^"\\]|\\["n\\])*)re");
            if (!std::regex_match(rest, kHelp)) return "HELP not escaped";
        }
        return {};
    }

    std::string check_sample(const std::string& name, const std::string& labels) {
        if (!name.starts_with(family_)) return "sample outside its family";
        const std::string suffix = name.substr(family_.size());
        if (type_ == "counter" && suffix != "_total") return "counter without _total";
        if (type_ == "gauge" && !suffix.empty()) return "gauge with a suffix";
        if (type_ == "histogram" && suffix != "_bucket" && suffix != "_sum" && suffix != "_count") {
            return "histogram suffix";
        }
        if (!series_.insert(name + labels).second) return "series twice";
        return {};
    }

    std::set<std::string> families_;
    std::set<std::string> series_;
    std::string family_;
    std::string type_;
    bool help_ = false;
    bool eof_ = false;
};

TEST(Histogram, PutsEveryBoundIntoItsOwnBucketAndOneMoreIntoTheNext) {
    EXPECT_EQ(Histogram::bucket_of(0), 0u);
    for (std::size_t i = 0; i < Histogram::kBounds.size(); ++i) {
        const std::uint64_t bound = Histogram::kBounds[i].limit;
        EXPECT_EQ(Histogram::bucket_of(bound - 1), i);
        EXPECT_EQ(Histogram::bucket_of(bound), i);
        EXPECT_EQ(Histogram::bucket_of(bound + 1), i + 1);
    }
    EXPECT_EQ(Histogram::bucket_of(~std::uint64_t{0}), Histogram::kBounds.size());
}

TEST(Histogram, FindsTheBucketThatASearchFinds) {
    for (std::uint64_t ns = 1; ns < 100'000'000'000; ns += ns / 50 + 1) {
        std::size_t i = 0;
        while (i < Histogram::kBounds.size() && ns > Histogram::kBounds[i].limit)
            ++i;
        ASSERT_EQ(Histogram::bucket_of(ns), i) << ns;
    }
}

TEST(Histogram, CountsNegativeDurationsAsZero) {
    Histogram h;
    h.observe(-5ms);
    EXPECT_EQ(h.bucket(0), 1u);
    EXPECT_EQ(h.sum_nanoseconds(), 0u);
}

TEST(SizeHistogram, PutsEverySizeIntoTheFirstBucketThatHoldsIt) {
    SizeHistogram sizes;
    for (std::uint64_t size = 0; size <= 1001; ++size) {
        std::size_t i = 0;
        while (i < SizeHistogram::kBounds.size() && size > SizeHistogram::kBounds[i].limit)
            ++i;
        ASSERT_EQ(SizeHistogram::bucket_of(size), i) << size;
        sizes.observe(size);
    }
    EXPECT_EQ(sizes.bucket(0), 2u);   // 0 and 1
    EXPECT_EQ(sizes.bucket(2), 3u);   // 3, 4, 5
    EXPECT_EQ(sizes.bucket(10), 1u);  // 1001
    EXPECT_EQ(sizes.count(), 1002u);
    EXPECT_EQ(sizes.sum(), 501'501u);
}

TEST(StatusCounters, CountsEveryCodeAndGathersTheRestUnderZero) {
    StatusCounters codes;
    for (int status = -2; status < 700; ++status)
        codes.add(status);
    for (int status = 100; status < 600; ++status)
        ASSERT_EQ(codes.value(status), 1u) << status;
    EXPECT_EQ(codes.value(0), 102u + 100u);
}

TEST(Registry, WritesPrometheusText) {
    Registry registry(2);
    registry.counter("retries_total", "Retries.", {"route"}).at({"pay"}, 0).add(3);
    registry.counter("retries_total", "Retries.", {"route"}).at({"pay"}, 1).add(4);
    registry.gauge("upstream_connections", "Open.").at({}, 0).set(-2);
    auto& codes = registry.status_counters("http_requests_total", "Requests.", {"route"});
    codes.at({"pay"}, 0).add(200);
    codes.at({"pay"}, 1).add(200);
    codes.at({"pay"}, 1).add(503);
    registry.collect([](Samples& out) {
        out.gauge("build_info", "Build.", 1, {{"version", "0.1.0"}});
        out.gauge("process_open_fds", "Files.", 12);
    });
    EXPECT_EQ(registry.render(kText),
              R"(# HELP outrider_build_info Build.
# TYPE outrider_build_info gauge
outrider_build_info{version="0.1.0"} 1
# HELP outrider_http_requests_total Requests.
# TYPE outrider_http_requests_total counter
outrider_http_requests_total{route="pay",code="200"} 2
outrider_http_requests_total{route="pay",code="503"} 1
# HELP outrider_retries_total Retries.
# TYPE outrider_retries_total counter
outrider_retries_total{route="pay"} 7
# HELP outrider_upstream_connections Open.
# TYPE outrider_upstream_connections gauge
outrider_upstream_connections -2
# HELP process_open_fds Files.
# TYPE process_open_fds gauge
process_open_fds 12
)");
}

TEST(Registry, WritesHistogramsWithCumulativeBucketsInSeconds) {
    Registry registry(1);
    Histogram& h = registry.histogram("wait_seconds", "Wait.", {"route"}).at({"a"}, 0);
    h.observe(50us);
    h.observe(3ms);
    h.observe(2min);
    const std::string text = registry.render(kText);
    EXPECT_THAT(text, HasSubstr("outrider_wait_seconds_bucket{route=\"a\",le=\"5e-05\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("outrider_wait_seconds_bucket{route=\"a\",le=\"0.0025\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("outrider_wait_seconds_bucket{route=\"a\",le=\"0.005\"} 2\n"));
    EXPECT_THAT(text, HasSubstr("outrider_wait_seconds_bucket{route=\"a\",le=\"60.0\"} 2\n"));
    EXPECT_THAT(text, HasSubstr("outrider_wait_seconds_bucket{route=\"a\",le=\"+Inf\"} 3\n"
                                "outrider_wait_seconds_sum{route=\"a\"} 120.00305\n"
                                "outrider_wait_seconds_count{route=\"a\"} 3\n"));
}

TEST(Registry, WritesHistogramsOfSizesAsWholeNumbers) {
    Registry registry(2);
    auto& sizes = registry.size_histogram("batch_size", "Size.", {"route"});
    sizes.at({"a"}, 0).observe(1);
    sizes.at({"a"}, 1).observe(40);
    sizes.at({"a"}, 1).observe(5000);
    const std::string text = registry.render(kText);
    EXPECT_THAT(text, HasSubstr("# TYPE outrider_batch_size histogram\n"
                                "outrider_batch_size_bucket{route=\"a\",le=\"1.0\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("outrider_batch_size_bucket{route=\"a\",le=\"20.0\"} 1\n"
                                "outrider_batch_size_bucket{route=\"a\",le=\"50.0\"} 2\n"));
    EXPECT_THAT(text, HasSubstr("outrider_batch_size_bucket{route=\"a\",le=\"+Inf\"} 3\n"
                                "outrider_batch_size_sum{route=\"a\"} 5041\n"
                                "outrider_batch_size_count{route=\"a\"} 3\n"));
}

TEST(Registry, WritesOpenMetricsThatAStrictReaderAccepts) {
    Registry registry(3);
    registry.counter("retries_total", "A \"quoted\" \\ help\nin two lines.", {"route"})
        .at({"a\"b\\c\nd\xff"}, 2)
        .add();
    registry.status_counters("http_requests_total", "Requests.", {"route"}).at({"x"}, 1).add(404);
    registry.histogram("wait_seconds", "Wait.", {"route"}).at({"x"}, 0).observe(1ms);
    registry.histogram("wait_seconds", "Wait.", {"route"}).at({"y"}, 0).observe(1us);
    registry.gauge("in_flight", "Now.").at({}, 0).set(5);
    registry.collect(collect_process_metrics);
    registry.collect([](Samples& out) {
        out.gauge("endpoint_healthy", "Up.", 1, {{"endpoint", "a"}});
        out.gauge("other", "Up.", 0.25);
        out.gauge("endpoint_healthy", "Up.", 0, {{"endpoint", "b"}});
    });
    const std::string text = registry.render(kOpen);
    EXPECT_EQ(OpenMetricsChecker().check(text), "") << text;
    EXPECT_THAT(text, HasSubstr("# TYPE outrider_retries counter\n"));
    EXPECT_THAT(text, HasSubstr("outrider_retries_total{route=\"a\\\"b\\\\c\\nd\xEF\xBF\xBD\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("A \\\"quoted\\\" \\\\ help\\nin two lines."));
    EXPECT_THAT(text, HasSubstr("process_cpu_seconds_total "));
    EXPECT_THAT(registry.render(kText), HasSubstr("A \"quoted\" \\\\ help\\nin two lines."));
    EXPECT_THAT(registry.render(kText), Not(HasSubstr("EOF")));
}

TEST(OpenMetricsChecker, FindsFaults) {
    EXPECT_NE(OpenMetricsChecker().check("# TYPE a counter\na_total 1\n"), "");
    EXPECT_NE(OpenMetricsChecker().check("# TYPE a counter\na 1\n# EOF\n"), "");
    EXPECT_NE(OpenMetricsChecker().check("# TYPE a gauge\na{b=\"c\"d\"} 1\n# EOF\n"), "");
    EXPECT_NE(OpenMetricsChecker().check("# TYPE a gauge\na 1\na 1\n# EOF\n"), "");
    EXPECT_EQ(OpenMetricsChecker().check("# TYPE a gauge\na{b=\"c\\\"d\"} 1\n# EOF\n"), "");
}

TEST(Registry, KeepsACellWhenItsLabelsAreAskedForAgain) {
    Registry registry(2);
    Counter& first = registry.counter("a_total", "A.", {"x"}).at({"1"}, 1);
    for (int i = 0; i < 5000; ++i) {
        registry.counter("a_total", "A.", {"x"}).at({std::to_string(i)}, 0).add();
    }
    EXPECT_EQ(&registry.counter("a_total", "A.", {"x"}).at({"1"}, 1), &first);
    EXPECT_NE(&registry.counter("a_total", "A.", {"x"}).at({"1"}, 0), &first);
}

TEST(Registry, CountsLabelsBeyondTheBoundAsOther) {
    Registry registry(1);
    registry.set_children_max(2);
    auto& family = registry.counter("a_total", "A.", {"x", "y"});
    for (const char* x : {"1", "2", "3", "4", "1"})
        family.at({x, "y"}, 0).add();
    EXPECT_EQ(family.children(), 3u);
    EXPECT_THAT(registry.render(kText), HasSubstr("outrider_a_total{x=\"1\",y=\"y\"} 2\n"
                                                  "outrider_a_total{x=\"2\",y=\"y\"} 1\n"
                                                  "outrider_a_total{x=\"other\",y=\"other\"} 2\n"));
}

TEST(Registry, IsReadWhileEveryShardCounts) {
    constexpr unsigned kWorkers = 2;
    constexpr std::uint64_t kRounds = 20'000;
    Registry registry(kWorkers);
    auto& counters = registry.counter("a_total", "A.");
    auto& codes = registry.status_counters("b_total", "B.");
    auto& times = registry.histogram("c_seconds", "C.");
    std::barrier start(kWorkers + 1);
    std::atomic<unsigned> running{kWorkers};
    std::vector<std::thread> workers;
    for (unsigned shard = 0; shard < kWorkers; ++shard) {
        workers.emplace_back([&start, &running, &counter = counters.at({}, shard),
                              &code = codes.at({}, shard), &time = times.at({}, shard)] {
            start.arrive_and_wait();
            for (std::uint64_t i = 0; i < kRounds; ++i) {
                counter.add();
                code.add(static_cast<int>(100 + i % 500));
                time.observe(Duration(static_cast<std::int64_t>(i)));
            }
            running.fetch_sub(1);
        });
    }
    start.arrive_and_wait();
    std::uint64_t before = 0;
    do {
        ASSERT_EQ(OpenMetricsChecker().check(registry.render(kOpen)), "");
        const std::uint64_t seen = counters.at({}, 0).value();
        EXPECT_GE(seen, before);
        before = seen;
    } while (running.load() != 0);
    for (std::thread& worker : workers)
        worker.join();
    const std::string text = registry.render(kText);
    EXPECT_THAT(text, HasSubstr("outrider_a_total 40000\n"));
    EXPECT_THAT(text, HasSubstr("outrider_b_total{code=\"599\"} 80\n"));
    EXPECT_THAT(text, HasSubstr("outrider_c_seconds_count 40000\n"));
}

TEST(Negotiate, AnswersOpenMetricsOnlyToThoseWhoNameIt) {
    const auto chosen = [](std::string_view accept) { return negotiate(accept).format; };
    EXPECT_EQ(chosen(""), kText);
    EXPECT_EQ(chosen("*/*"), kText);
    EXPECT_EQ(chosen("text/html, application/xhtml+xml;q=0.9, */*;q=0.8"), kText);
    EXPECT_EQ(chosen("application/openmetrics-text"), kOpen);
    EXPECT_EQ(chosen("Application/OpenMetrics-Text; Version=\"1.0.0\""), kOpen);
    EXPECT_EQ(chosen("application/openmetrics-text;version=1.0.0;q=0.5,"
                     "application/openmetrics-text;version=0.0.1;q=0.4,"
                     "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"),
              kOpen);
    EXPECT_EQ(chosen("application/openmetrics-text;version=0.0.1,text/plain;q=0.5"), kText);
    EXPECT_EQ(chosen("application/openmetrics-text;q=0.2,text/plain;q=0.5"), kText);
    EXPECT_EQ(chosen("application/openmetrics-text;q=0"), kText);
    EXPECT_EQ(chosen("application/openmetrics-text;q=nonsense,text/plain;q=0.1"), kText);
    EXPECT_EQ(negotiate("").content_type, "text/plain; version=0.0.4; charset=utf-8");
    EXPECT_EQ(negotiate("application/openmetrics-text").content_type,
              "application/openmetrics-text; version=1.0.0; charset=utf-8");
}

TEST(Exposition, WritesNumbersThatReadBack) {
    EXPECT_EQ(number_text(0), "0");
    EXPECT_EQ(number_text(1769860800), "1769860800");
    EXPECT_EQ(number_text(0.25), "0.25");
    EXPECT_EQ(number_text(-1), "-1");
    EXPECT_EQ(number_text(1.0 / 0.0), "+Inf");
    EXPECT_EQ(seconds_text(0), "0");
    EXPECT_EQ(seconds_text(1), "0.000000001");
    EXPECT_EQ(seconds_text(1'500'000), "0.0015");
    EXPECT_EQ(seconds_text(61'000'000'000), "61");
}

TEST(ProcStat, ReadsPastACommandNameWithSpacesAndParentheses) {
    const auto stat = parse_proc_stat(
        "42 (out) 7 (r) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 777 1048576 321 "
        "18446744073709551615 1 1 0\n");
    ASSERT_TRUE(stat.has_value());
    EXPECT_EQ(stat->cpu_ticks, 300u);
    EXPECT_EQ(stat->threads, 5u);
    EXPECT_EQ(stat->start_ticks, 777u);
    EXPECT_EQ(stat->virtual_bytes, 1048576u);
    EXPECT_EQ(stat->resident_pages, 321u);
    EXPECT_FALSE(parse_proc_stat("42 (x) S 1 2").has_value());
    EXPECT_FALSE(parse_proc_stat("").has_value());
}

TEST(ProcessMetrics, TellWhatThisProcessUses) {
    Registry registry(1);
    registry.collect(collect_process_metrics);
    const std::string text = registry.render(kText);
    for (const char* name :
         {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes",
          "process_threads", "process_start_time_seconds", "process_open_fds", "process_max_fds"}) {
        EXPECT_THAT(text, HasSubstr(std::string("\n") + name + " ")) << text;
    }
}

}  // namespace
}  // namespace outrider
