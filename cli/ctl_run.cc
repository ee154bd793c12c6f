#include "cli/ctl_run.h"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>

#include "base/bytes.h"

namespace outrider::cli {
namespace {

agent::ClientOptions client_options(const CtlOptions& options) {
    agent::ClientOptions out;
    out.endpoints = options.endpoint_list();
    out.call_timeout = options.timeout_value();
    // A member that is silent must leave time for another one.
    out.attempt_timeout = std::min(out.attempt_timeout, out.call_timeout / 3);
    out.connect_timeout = std::min(out.connect_timeout, out.call_timeout / 3);
    return out;
}

// etcd's text, which does not say what is too large; etcd itself has no limit of its own for keys.
const std::string kTooLarge = "etcdserver: request is too large";
constexpr const char* kLimits = " (outrider's limits are 16 KiB a key and 1.5 MiB a request)";

// In columns of a terminal, near enough: code points.
std::size_t width_of(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

CtlRun::CtlRun(const CtlOptions& options)
    : options_(options), client_(std::make_unique<agent::Client>(loop_, client_options(options))) {}

CtlRun::~CtlRun() {
    client_.reset();
}

int CtlRun::run(const std::function<void()>& begin) {
    std::signal(SIGPIPE, SIG_IGN);
    loop_.post(begin);
    loop_.run();
    return code_;
}

void CtlRun::finish(int code) {
    if (std::exchange(finished_, true)) return;
    code_ = code;
    loop_.stop();
}

void CtlRun::fail(const std::string& reason) {
    if (finished_) return;
    std::fprintf(stderr, "outrider ctl: %s\n", reason.c_str());
    finish(1);
}

std::string CtlRun::reason_of(agent::Outcome outcome, int code, const std::string& endpoint,
                              const std::string& reason) {
    switch (outcome) {
        case agent::Outcome::kUnknown:
            return "the outcome is unknown, it may have taken effect: " + reason;
        case agent::Outcome::kUnavailable:
            return (endpoint.empty() ? "no endpoint answered: " : "no endpoint could serve it: ") + reason;
        case agent::Outcome::kRefused:
            if (code == 0) return endpoint + ": " + reason;  // not the quorum's words: whose, then?
            if (reason == kTooLarge) return reason + kLimits;
            break;
        case agent::Outcome::kOk:
            break;
    }
    return reason;
}

agent::CallOptions CtlRun::call_options() const {
    return {.timeout = options_.timeout_value(), .lane = agent::Lane::kMain};
}

void CtlRun::print(std::string_view text) {
    if (finished_) return;
    const bool written =
        std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    if (!written) fail("cannot write to standard output");
}

std::string Table::text() const {
    std::vector<std::size_t> widths(rows_.front().size());
    for (const auto& row : rows_) {
        for (std::size_t i = 0; i < row.size(); ++i)
            widths[i] = std::max(widths[i], width_of(row[i]));
    }
    std::string out;
    for (const auto& row : rows_) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            line += row[i];
            if (i + 1 < row.size()) line.append(widths[i] - width_of(row[i]) + 2, ' ');
        }
        line.erase(line.find_last_not_of(' ') + 1);
        out += line + "\n";
    }
    return out;
}

std::string printable(std::string_view bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    while (!bytes.empty()) {
        const auto byte = static_cast<unsigned char>(bytes.front());
        const std::size_t size = byte < 0x20 || byte == 0x7f ? 0 : utf8_sequence(bytes);
        if (size == 0) {
            out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
            bytes.remove_prefix(1);
            continue;
        }
        out += bytes.substr(0, size);
        bytes.remove_prefix(size);
    }
    return out;
}

std::string hex_id(std::uint64_t id) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%016llx", static_cast<unsigned long long>(id));
    return text;
}

std::optional<std::uint64_t> parse_id(std::string_view text) {
    const bool hex = text.size() > 2 && text.substr(0, 2) == "0x";
    if (hex) text.remove_prefix(2);
    std::uint64_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id, hex ? 16 : 10);
    if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
    return id;
}

CLI::Validator whole_number(std::int64_t least, const std::string& unit) {
    const auto check = [least, unit](const std::string& text) {
        std::int64_t number = 0;
        const char* last = text.data() + text.size();
        const auto [end, error] = std::from_chars(text.data(), last, number);
        if (error == std::errc() && end == last && number >= least) return std::string();
        return "\"" + text + "\" is not " +
               (unit.empty()
                    ? "a whole number, at least " + std::to_string(least)
                    : "a number of " + unit + ", at least " + std::to_string(least) + " and without a unit");
    };
    return CLI::Validator(check, "");
}

std::string check_id(const std::string& text) {
    return parse_id(text) ? "" : "\"" + text + "\" is no id: decimal, or 0x and hexadecimal digits";
}

}  // namespace outrider::cli
