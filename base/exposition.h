// The text that GET /metrics answers: Prometheus text 0.0.4 and OpenMetrics 1.0.0.
//
// Pure: strings in, strings out. The two differ in what this file knows and nobody else needs to:
// OpenMetrics names a counter's family without "_total", escapes quotes in HELP, and ends with "#
// EOF". Histogram bounds are written alike in both ("1.0"), so that negotiating another format
// never starts new series.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace outrider {

enum class ExpositionFormat : std::uint8_t { kText, kOpenMetrics };

struct Exposition {
    ExpositionFormat format = ExpositionFormat::kText;
    std::string_view content_type;  // static storage
};

// Chooses by the request's Accept value (RFC 9110 section 12.5.1): OpenMetrics only when it is
// named (any or no version other than 1.0.0 excepted), acceptable and not ranked below text/plain;
// text for everything else.
Exposition negotiate(std::string_view accept);

enum class MetricKind : std::uint8_t { kCounter, kGauge, kHistogram };

using LabelNames = std::vector<std::string>;
using LabelValues = std::vector<std::string>;

// Writes families one after the other. Call family(), then its samples, then the next family.
// Names are written as given (no prefix is added); bytes of label values that are not UTF-8 become
// U+FFFD.
class ExpositionWriter {
  public:
    explicit ExpositionWriter(ExpositionFormat format) : format_(format) {}

    // A counter's name ends in "_total" (required).
    void family(std::string_view name, std::string_view help, MetricKind kind);

    // A sample of the current family: name + suffix, the labels, and last the label extra_name when
    // not empty.
    void sample(std::string_view suffix, const LabelNames& names, const LabelValues& values,
                std::string_view extra_name, std::string_view extra_value, std::string_view number);
    void sample(const LabelNames& names, const LabelValues& values, std::string_view number) {
        sample({}, names, values, {}, {}, number);
    }

    std::string finish() &&;

  private:
    ExpositionFormat format_;
    std::string name_;
    std::string out_;
};

// Whole numbers without exponent up to 2^53, else the shortest form that reads back; NaN, +Inf,
// -Inf.
std::string number_text(double value);
// Nanoseconds as exact decimal seconds: 1500000 -> "0.0015".
std::string seconds_text(std::uint64_t nanoseconds);

}  // namespace outrider
