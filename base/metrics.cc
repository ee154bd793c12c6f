#include "base/metrics.h"

#include <new>
#include <type_traits>

#include "base/check.h"
#include "base/log.h"

namespace outrider {
namespace {

template <typename Scale>
constexpr bool bounds_double() {
    for (std::size_t i = 1; i < Scale::kBounds.size(); ++i) {
        if (Scale::kBounds[i].limit < 2 * Scale::kBounds[i - 1].limit) return false;
    }
    return true;
}
static_assert(bounds_double<DurationScale>() && bounds_double<SizeScale>(),
              "BasicHistogram::bucket_of relies on it");

std::string sum_text(const Histogram&, std::uint64_t nanoseconds) {
    return seconds_text(nanoseconds);
}
std::string sum_text(const SizeHistogram&, std::uint64_t size) {
    return std::to_string(size);
}

void render_cells(ExpositionWriter& out, const LabelNames& names, const LabelValues& values,
                  const std::vector<Counter*>& cells) {
    std::uint64_t sum = 0;
    for (const Counter* cell : cells)
        sum += cell->value();
    out.sample(names, values, std::to_string(sum));
}

void render_cells(ExpositionWriter& out, const LabelNames& names, const LabelValues& values,
                  const std::vector<Gauge*>& cells) {
    std::int64_t sum = 0;
    for (const Gauge* cell : cells)
        sum += cell->value();
    out.sample(names, values, std::to_string(sum));
}

// The count is the sum of the buckets, so that +Inf and _count agree while workers go on counting.
template <typename Cell>
void render_histogram(ExpositionWriter& out, const LabelNames& names, const LabelValues& values,
                      const std::vector<Cell*>& cells) {
    constexpr std::size_t kBounds = Cell::kBounds.size();
    std::uint64_t count = 0;
    for (std::size_t i = 0; i <= kBounds; ++i) {
        for (const Cell* cell : cells)
            count += cell->bucket(i);
        out.sample("_bucket", names, values, "le", i == kBounds ? "+Inf" : Cell::kBounds[i].le,
                   std::to_string(count));
    }
    std::uint64_t sum = 0;
    for (const Cell* cell : cells)
        sum += cell->sum();
    out.sample("_sum", names, values, {}, {}, sum_text(*cells.front(), sum));
    out.sample("_count", names, values, {}, {}, std::to_string(count));
}

void render_cells(ExpositionWriter& out, const LabelNames& names, const LabelValues& values,
                  const std::vector<Histogram*>& cells) {
    render_histogram(out, names, values, cells);
}

void render_cells(ExpositionWriter& out, const LabelNames& names, const LabelValues& values,
                  const std::vector<SizeHistogram*>& cells) {
    render_histogram(out, names, values, cells);
}

void render_cells(ExpositionWriter& out, const LabelNames& names, const LabelValues& values,
                  const std::vector<StatusCounters*>& cells) {
    const auto code = [&](int status) {
        std::uint64_t sum = 0;
        for (const StatusCounters* cell : cells)
            sum += cell->value(status);
        if (sum != 0) {
            out.sample({}, names, values, "code", std::to_string(status), std::to_string(sum));
        }
    };
    code(0);
    for (int status = 100; status < 600; ++status)
        code(status);
}

}  // namespace

StatusCounters::~StatusCounters() {
    for (auto& page : pages_)
        delete page.load(std::memory_order_acquire);
}

StatusCounters::Page* StatusCounters::new_page(std::size_t index) {
    auto* page = new Page();
    pages_[index].store(page, std::memory_order_release);  // the reader sees its zeroes
    return page;
}

std::uint64_t StatusCounters::value(int status) const {
    const auto i = static_cast<std::size_t>(static_cast<unsigned>(status) - 100u);
    if (i >= kCodes) return none_.value();
    const Page* page = pages_[i / kPageCodes].load(std::memory_order_acquire);
    return page == nullptr ? 0 : (*page)[i % kPageCodes].value();
}

void Samples::gauge(std::string_view name, std::string_view help, double value, Labels labels) {
    add(name, help, MetricKind::kGauge, {std::move(labels), value});
}

void Samples::counter(std::string_view name, std::string_view help, double value, Labels labels) {
    add(name, help, MetricKind::kCounter, {std::move(labels), value});
}

void Samples::add(std::string_view name, std::string_view help, MetricKind kind, Sample sample) {
    auto [at, made] = families_.try_emplace(Registry::full_name(name));
    if (made) {
        at->second.help = help;
        at->second.kind = kind;
    }
    at->second.samples.push_back(std::move(sample));
}

void Samples::render(const std::string& name, const Family& family, ExpositionWriter& out) {
    out.family(name, family.help, family.kind);
    for (const Sample& sample : family.samples) {
        LabelNames names;
        LabelValues values;
        for (const auto& [label, value] : sample.labels) {
            names.push_back(label);
            values.push_back(value);
        }
        out.sample(names, values, number_text(sample.value));
    }
}

namespace metrics_detail {

void CellArena::Free::operator()(std::byte* block) const {
    ::operator delete (block, std::align_val_t{64});
}

void* CellArena::take(std::size_t bytes) {
    bytes = (bytes + 7) / 8 * 8;
    require(bytes <= kBlockBytes, "a cell fits a block");
    if (bytes > left_) {
        blocks_.emplace_back(static_cast<std::byte*>(::operator new (kBlockBytes, std::align_val_t{64})));
        left_ = kBlockBytes;
    }
    std::byte* const at = blocks_.back().get() + (kBlockBytes - left_);
    left_ -= bytes;
    return at;
}

bool FamilyBase::full(std::size_t children) {
    if (children < info_.children_max) return false;
    if (!warned_) {
        warned_ = true;
        log_warning("metric {} has {} label combinations; further ones count as \"other\"", info_.name,
                    children);
    }
    return true;
}

}  // namespace metrics_detail

template <typename Cell>
Family<Cell>::~Family() {
    if constexpr (!std::is_trivially_destructible_v<Cell>) {
        for (auto& [values, cells] : children_) {
            for (Cell* cell : cells)
                std::destroy_at(cell);
        }
    }
}

template <typename Cell>
typename Family<Cell>::Cells& Family<Cell>::child(LabelValues values) {
    const auto found = children_.find(values);
    if (found != children_.end()) return found->second;
    const LabelValues other(values.size(), "other");
    if (values != other && full(children_.size())) return child(other);
    Cells cells;
    for (metrics_detail::CellArena& shard : shards_) {
        cells.push_back(new (shard.take(sizeof(Cell))) Cell());
    }
    return children_.emplace(std::move(values), std::move(cells)).first->second;
}

template <typename Cell>
Cell& Family<Cell>::at(std::initializer_list<std::string_view> values, unsigned shard) {
    require(values.size() == info().labels.size(), "each label has a value");
    require(shard < shards_.size(), "the registry has this shard");
    return *child(LabelValues(values.begin(), values.end()))[shard];
}

template <typename Cell>
void Family<Cell>::render(ExpositionWriter& out) const {
    out.family(info().name, info().help, info().kind);
    for (const auto& [values, cells] : children_)
        render_cells(out, info().labels, values, cells);
}

template class Family<Counter>;
template class Family<Gauge>;
template class Family<Histogram>;
template class Family<SizeHistogram>;
template class Family<StatusCounters>;

Registry::Registry(unsigned shards) : shards_(shards) {
    require(shards > 0, "a registry has a shard");
}

std::string Registry::full_name(std::string_view name) {
    return name.starts_with("process_") ? std::string(name) : "outrider_" + std::string(name);
}

template <typename Cell>
Family<Cell>& Registry::family(std::string_view name, std::string_view help, MetricKind kind,
                               LabelNames labels) {
    std::string full = full_name(name);
    if (kind == MetricKind::kCounter) {
        require(full.ends_with("_total"), "a counter's name ends in _total");
    }
    auto& slot = families_[full];
    if (!slot) {
        metrics_detail::FamilyInfo info{full, std::string(help), kind, std::move(labels), children_max_};
        slot = std::make_unique<Family<Cell>>(std::move(info), shards_);
        return static_cast<Family<Cell>&>(*slot);
    }
    auto* same = dynamic_cast<Family<Cell>*>(slot.get());
    require(same != nullptr, "a metric name keeps its kind");
    require(same->info().labels == labels, "a metric name keeps its labels");
    return *same;
}

Family<Counter>& Registry::counter(std::string_view name, std::string_view help, LabelNames labels) {
    return family<Counter>(name, help, MetricKind::kCounter, std::move(labels));
}

Family<Gauge>& Registry::gauge(std::string_view name, std::string_view help, LabelNames labels) {
    return family<Gauge>(name, help, MetricKind::kGauge, std::move(labels));
}

Family<Histogram>& Registry::histogram(std::string_view name, std::string_view help, LabelNames labels) {
    return family<Histogram>(name, help, MetricKind::kHistogram, std::move(labels));
}

Family<SizeHistogram>& Registry::size_histogram(std::string_view name, std::string_view help,
                                                LabelNames labels) {
    return family<SizeHistogram>(name, help, MetricKind::kHistogram, std::move(labels));
}

Family<StatusCounters>& Registry::status_counters(std::string_view name, std::string_view help,
                                                  LabelNames labels) {
    return family<StatusCounters>(name, help, MetricKind::kCounter, std::move(labels));
}

void Registry::collect(std::function<void(Samples&)> collector) {
    collectors_.push_back(std::move(collector));
}

std::string Registry::render(ExpositionFormat format) const {
    Samples samples;
    for (const auto& collector : collectors_)
        collector(samples);
    ExpositionWriter out(format);
    auto sampled = samples.families_.begin();
    const auto end = samples.families_.end();
    for (const auto& [name, family] : families_) {
        for (; sampled != end && sampled->first < name; ++sampled) {
            Samples::render(sampled->first, sampled->second, out);
        }
        require(sampled == end || sampled->first != name, "a name is a family's or a collector's, not both");
        family->render(out);
    }
    for (; sampled != end; ++sampled)
        Samples::render(sampled->first, sampled->second, out);
    return std::move(out).finish();
}

}  // namespace outrider
