#include "base/exposition.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/bytes.h"
#include "base/check.h"

namespace outrider {
namespace {

constexpr std::string_view kTextType = "text/plain; version=0.0.4; charset=utf-8";
constexpr std::string_view kOpenMetricsType = "application/openmetrics-text; version=1.0.0; charset=utf-8";

// One element of Accept: its range, its weight in thousandths, its version parameter.
struct MediaRange {
    std::string_view type;
    int weight = 1000;
    std::string_view version;
};

// qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] ); anything else counts as 0.
int parse_weight(std::string_view q) {
    if (q.empty() || (q[0] != '0' && q[0] != '1')) return 0;
    int weight = (q[0] - '0') * 1000;
    if (q.size() == 1) return weight;
    if (q[1] != '.' || q.size() > 5) return 0;
    int unit = 100;
    for (const char c : q.substr(2)) {
        if (!ascii_digit(c)) return 0;
        weight += (c - '0') * unit;
        unit /= 10;
    }
    return std::min(weight, 1000);
}

MediaRange parse_range(std::string_view element) {
    MediaRange range;
    std::size_t semicolon = element.find(';');
    range.type = trim_ows(element.substr(0, semicolon));
    while (semicolon != std::string_view::npos) {
        element.remove_prefix(semicolon + 1);
        semicolon = element.find(';');
        const std::string_view parameter = trim_ows(element.substr(0, semicolon));
        const std::size_t equals = parameter.find('=');
        if (equals == std::string_view::npos) continue;
        const std::string_view name = parameter.substr(0, equals);
        std::string_view value = parameter.substr(equals + 1);
        if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
            value = value.substr(1, value.size() - 2);
        }
        if (iequals(name, "q")) range.weight = parse_weight(value);
        if (iequals(name, "version")) range.version = value;
    }
    return range;
}

void append_escaped(std::string& out, std::string_view s, bool quotes) {
    while (!s.empty()) {
        const char c = s.front();
        if (c == '\\') {
            out += "\\\\";
        } else if (c == '\n') {
            out += "\\n";
        } else if (c == '"' && quotes) {
            out += "\\\"";
        } else if (const std::size_t n = utf8_sequence(s); n != 0) {
            out.append(s.substr(0, n));
            s.remove_prefix(n);
            continue;
        } else {
            out += "\xEF\xBF\xBD";
        }
        s.remove_prefix(1);
    }
}

constexpr std::string_view kind_text(MetricKind kind) {
    switch (kind) {
        case MetricKind::kCounter:
            return "counter";
        case MetricKind::kGauge:
            return "gauge";
        case MetricKind::kHistogram:
            return "histogram";
    }
    return "unknown";
}

}  // namespace

Exposition negotiate(std::string_view accept) {
    int open_metrics = 0;
    std::optional<int> text;
    for_each_list_element(accept, [&](std::string_view element) {
        const MediaRange range = parse_range(element);
        if (iequals(range.type, "application/openmetrics-text")) {
            if (range.version.empty() || range.version == "1.0.0") {
                open_metrics = std::max(open_metrics, range.weight);
            }
        } else if (iequals(range.type, "text/plain")) {
            text = std::max(text.value_or(0), range.weight);
        }
    });
    if (open_metrics > 0 && open_metrics >= text.value_or(0)) {
        return {ExpositionFormat::kOpenMetrics, kOpenMetricsType};
    }
    return {ExpositionFormat::kText, kTextType};
}

void ExpositionWriter::family(std::string_view name, std::string_view help, MetricKind kind) {
    constexpr std::string_view kTotal = "_total";
    if (kind == MetricKind::kCounter) {
        require(name.ends_with(kTotal), "a counter's name ends in _total");
    }
    name_ = name;
    const bool open = format_ == ExpositionFormat::kOpenMetrics;
    if (open && kind == MetricKind::kCounter) name.remove_suffix(kTotal.size());
    out_.append("# HELP ").append(name).append(" ");
    append_escaped(out_, help, open);
    out_.append("\n# TYPE ").append(name).append(" ").append(kind_text(kind)).append("\n");
}

void ExpositionWriter::sample(std::string_view suffix, const LabelNames& names, const LabelValues& values,
                              std::string_view extra_name, std::string_view extra_value,
                              std::string_view number) {
    require(names.size() == values.size(), "each label has a value");
    out_.append(name_).append(suffix);
    char separator = '{';
    const auto label = [&](std::string_view name, std::string_view value) {
        out_ += separator;
        out_.append(name).append("=\"");
        append_escaped(out_, value, true);
        out_ += '"';
        separator = ',';
    };
    for (std::size_t i = 0; i < names.size(); ++i)
        label(names[i], values[i]);
    if (!extra_name.empty()) label(extra_name, extra_value);
    if (separator == ',') out_ += '}';
    out_.append(" ").append(number).append("\n");
}

std::string ExpositionWriter::finish() && {
    if (format_ == ExpositionFormat::kOpenMetrics) out_ += "# EOF\n";
    return std::move(out_);
}

std::string number_text(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
    constexpr double kExact = 9007199254740992.0;  // 2^53
    char text[40];
    std::to_chars_result end{};
    if (std::abs(value) <= kExact && std::trunc(value) == value) {
        end = std::to_chars(text, text + sizeof text, static_cast<std::int64_t>(value));
    } else {
        end = std::to_chars(text, text + sizeof text, value);
    }
    return {text, end.ptr};
}

std::string seconds_text(std::uint64_t nanoseconds) {
    std::string text = std::to_string(nanoseconds / 1'000'000'000);
    const std::uint64_t fraction = nanoseconds % 1'000'000'000;
    if (fraction == 0) return text;
    const std::string digits = std::to_string(fraction);
    text.append(".").append(9 - digits.size(), '0').append(digits);
    text.erase(text.find_last_not_of('0') + 1);
    return text;
}

}  // namespace outrider
