// Counting on the hot path, reading at a scrape.
//
// Every worker writes cells of its own (a "shard"); the main thread sums the shards when /metrics
// is asked. A cell has one writer, so that an increment is a plain load, add and store: no lock
// prefix, no shared cache line.
//
// Invariants:
//   * a cell is written by the thread that owns its shard, and read by any
//   * families, children and rendering belong to the main thread alone: look cells up while a
//   configuration is built
//     and hand the references to the worker with its snapshot
//   * a reference to a cell stays good until the registry dies: a child is never forgotten, so that
//   a counter never
//     falls when a route goes and comes back
//   * a family holds at most children_max children; label values beyond that are counted in the one
//   child whose
//     label values are all "other"
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/exposition.h"
#include "base/time.h"

namespace outrider {

// Only ever grows.
class Counter {
  public:
    void add(std::uint64_t n = 1) {
        value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
    std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

class Gauge {
  public:
    void add(std::int64_t n) { set(value() + n); }
    void set(std::int64_t n) { value_.store(n, std::memory_order_relaxed); }
    std::int64_t value() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::int64_t> value_{0};
};

// What a histogram's values are: a bound is an upper one, its text the label `le`; values above the last count in +Inf alone. Each
// bound is at least twice the one before (BasicHistogram::bucket_of relies on it).
struct HistogramBound {
    std::uint64_t limit;
    std::string_view le;
};
// Durations from 50 us to 60 s in steps of 1, 2.5, 5 (3 a decade), in nanoseconds; shown in seconds.
struct DurationScale {
    static constexpr std::array<HistogramBound, 19> kBounds{{{50'000, "5e-05"},
                                                             {100'000, "0.0001"},
                                                             {250'000, "0.00025"},
                                                             {500'000, "0.0005"},
                                                             {1'000'000, "0.001"},
                                                             {2'500'000, "0.0025"},
                                                             {5'000'000, "0.005"},
                                                             {10'000'000, "0.01"},
                                                             {25'000'000, "0.025"},
                                                             {50'000'000, "0.05"},
                                                             {100'000'000, "0.1"},
                                                             {250'000'000, "0.25"},
                                                             {500'000'000, "0.5"},
                                                             {1'000'000'000, "1.0"},
                                                             {2'500'000'000, "2.5"},
                                                             {5'000'000'000, "5.0"},
                                                             {10'000'000'000, "10.0"},
                                                             {30'000'000'000, "30.0"},
                                                             {60'000'000'000, "60.0"}}};
};
// How many there were of something: 1 to 1,000 in steps of 1, 2, 5.
struct SizeScale {
    static constexpr std::array<HistogramBound, 10> kBounds{{{1, "1.0"},
                                                             {2, "2.0"},
                                                             {5, "5.0"},
                                                             {10, "10.0"},
                                                             {20, "20.0"},
                                                             {50, "50.0"},
                                                             {100, "100.0"},
                                                             {200, "200.0"},
                                                             {500, "500.0"},
                                                             {1000, "1000.0"}}};
};

template <typename Scale>
class BasicHistogram {
  public:
    static constexpr const auto& kBounds = Scale::kBounds;

    // First i with value <= kBounds[i], kBounds.size() for +Inf. Neighbours differ by a factor of 2 or
    // more, so at most one bound lies among the numbers of one bit width: a table by width and one
    // comparison find it.
    static constexpr std::size_t bucket_of(std::uint64_t value) {
        const std::size_t first = kFirstOfWidth[static_cast<std::size_t>(std::bit_width(value))];
        return first + static_cast<std::size_t>(value > kLimits[first]);
    }

    std::uint64_t bucket(std::size_t i) const { return buckets_[i].value(); }  // not cumulative
    std::uint64_t sum() const { return sum_.value(); }
    std::uint64_t count() const {
        std::uint64_t count = 0;
        for (const Counter& bucket : buckets_)
            count += bucket.value();
        return count;
    }

  protected:
    void add(std::uint64_t value) {
        buckets_[bucket_of(value)].add();
        sum_.add(value);
    }

  private:
    // kBounds and one limit that nothing exceeds.
    static constexpr auto kLimits = [] {
        std::array<std::uint64_t, Scale::kBounds.size() + 1> limits{};
        for (std::size_t i = 0; i < Scale::kBounds.size(); ++i)
            limits[i] = Scale::kBounds[i].limit;
        limits.back() = ~std::uint64_t{0};
        return limits;
    }();
    static constexpr auto kFirstOfWidth = [] {
        std::array<std::uint8_t, 65> first{};
        for (std::size_t width = 1; width <= 64; ++width) {
            std::uint8_t i = 0;
            while (kLimits[i] < (std::uint64_t{1} << (width - 1)))
                ++i;
            first[width] = i;
        }
        return first;
    }();

    std::array<Counter, Scale::kBounds.size() + 1> buckets_;
    Counter sum_;
};

class Histogram : public BasicHistogram<DurationScale> {
  public:
    // Below zero counts as zero.
    void observe(Duration d) { add(d.count() > 0 ? static_cast<std::uint64_t>(d.count()) : 0); }
    std::uint64_t sum_nanoseconds() const { return sum(); }
};

class SizeHistogram : public BasicHistogram<SizeScale> {
  public:
    void observe(std::uint64_t size) { add(size); }
};

// One counter for each status code, rendered as the label `code`; codes never seen cost and show
// nothing. Pages of 16 codes are allocated by the writer when a code of theirs first occurs (a few
// times in a process's life).
class StatusCounters {
  public:
    StatusCounters() = default;
    ~StatusCounters();
    StatusCounters(const StatusCounters&) = delete;
    StatusCounters& operator=(const StatusCounters&) = delete;

    // Anything outside 100 to 599 (0: no status was ever sent) counts as code "0".
    void add(int status) {
        const auto i = static_cast<std::size_t>(static_cast<unsigned>(status) - 100u);
        if (i >= kCodes) [[unlikely]] {
            none_.add();
            return;
        }
        Page* page = pages_[i / kPageCodes].load(std::memory_order_relaxed);
        if (page == nullptr) [[unlikely]]
            page = new_page(i / kPageCodes);
        (*page)[i % kPageCodes].add();
    }
    std::uint64_t value(int status) const;

  private:
    static constexpr std::size_t kCodes = 500;
    static constexpr std::size_t kPageCodes = 16;
    using Page = std::array<Counter, kPageCodes>;
    Page* new_page(std::size_t index);

    std::array<std::atomic<Page*>, (kCodes + kPageCodes - 1) / kPageCodes> pages_{};
    Counter none_;
};

// What a collector adds at a scrape: values that live elsewhere (process_*, build_info, a core's
// state). Names as for Registry. A name that several collectors use is one family, with the first
// one's help and kind.
class Samples {
  public:
    using Labels = std::vector<std::pair<std::string, std::string>>;
    void gauge(std::string_view name, std::string_view help, double value, Labels labels = {});
    void counter(std::string_view name, std::string_view help, double value, Labels labels = {});

  private:
    friend class Registry;
    struct Sample {
        Labels labels;
        double value;
    };
    struct Family {
        std::string help;
        MetricKind kind;
        std::vector<Sample> samples;
    };
    void add(std::string_view name, std::string_view help, MetricKind kind, Sample sample);
    static void render(const std::string& name, const Family& family, ExpositionWriter& out);
    std::map<std::string, Family> families_;
};

namespace metrics_detail {

// Memory for the cells of one shard: what one thread writes shares cache lines with nothing another
// thread writes.
class CellArena {
  public:
    void* take(std::size_t bytes);  // aligned to 8

  private:
    static constexpr std::size_t kBlockBytes = 4096;
    struct Free {
        void operator()(std::byte* block) const;
    };
    std::vector<std::unique_ptr<std::byte, Free>> blocks_;
    std::size_t left_ = 0;
};

struct FamilyInfo {
    std::string name;  // with its prefix
    std::string help;
    MetricKind kind;
    LabelNames labels;
    std::size_t children_max;
};

class FamilyBase {
  public:
    explicit FamilyBase(FamilyInfo info) : info_(std::move(info)) {}
    virtual ~FamilyBase() = default;
    FamilyBase(const FamilyBase&) = delete;
    FamilyBase& operator=(const FamilyBase&) = delete;
    virtual void render(ExpositionWriter& out) const = 0;
    const FamilyInfo& info() const { return info_; }

  protected:
    // True when one more child would exceed the bound; says so in the log the first time.
    bool full(std::size_t children);

  private:
    FamilyInfo info_;
    bool warned_ = false;
};

}  // namespace metrics_detail

// Cell is Counter, Gauge, Histogram, SizeHistogram or StatusCounters.
template <typename Cell>
class Family : public metrics_detail::FamilyBase {
  public:
    Family(metrics_detail::FamilyInfo info, std::vector<metrics_detail::CellArena>& shards)
        : FamilyBase(std::move(info)), shards_(shards) {}
    ~Family() override;

    // The cell of these label values (in the order of the label names) that `shard` writes.
    Cell& at(std::initializer_list<std::string_view> values, unsigned shard);

    std::size_t children() const { return children_.size(); }
    void render(ExpositionWriter& out) const override;

  private:
    using Cells = std::vector<Cell*>;  // one for each shard
    Cells& child(LabelValues values);
    std::vector<metrics_detail::CellArena>& shards_;
    std::map<LabelValues, Cells> children_;
};

class Registry {
  public:
    static constexpr std::size_t kChildrenMax = 10'000;

    // shards: one for each thread that counts (the workers, and the main thread when it counts
    // too).
    explicit Registry(unsigned shards);

    // The family of that name, made on first use; asking again with another kind or other labels is
    // a programmer's error. Names come without "outrider_", which is put before all but process_*;
    // a counter's ends in _total.
    Family<Counter>& counter(std::string_view name, std::string_view help, LabelNames labels = {});
    Family<Gauge>& gauge(std::string_view name, std::string_view help, LabelNames labels = {});
    Family<Histogram>& histogram(std::string_view name, std::string_view help, LabelNames labels = {});
    Family<SizeHistogram>& size_histogram(std::string_view name, std::string_view help,
                                          LabelNames labels = {});
    // A counter family with the label `code` after those given.
    Family<StatusCounters>& status_counters(std::string_view name, std::string_view help,
                                            LabelNames labels = {});

    // Called at every render, on the main thread, in the order of registration.
    void collect(std::function<void(Samples&)> collector);

    // Families in the order of their names.
    std::string render(ExpositionFormat format) const;

    unsigned shards() const { return static_cast<unsigned>(shards_.size()); }
    // For tests of the bound; holds for families made afterwards.
    void set_children_max(std::size_t n) { children_max_ = n; }

    static std::string full_name(std::string_view name);

  private:
    template <typename Cell>
    Family<Cell>& family(std::string_view name, std::string_view help, MetricKind kind, LabelNames labels);

    std::vector<metrics_detail::CellArena> shards_;
    std::map<std::string, std::unique_ptr<metrics_detail::FamilyBase>> families_;
    std::vector<std::function<void(Samples&)>> collectors_;
    std::size_t children_max_ = kChildrenMax;
};

}  // namespace outrider
