// One line for each exchange. Here: what a line holds and how it is written; access_log_writer.h
// brings lines to a file.
//
// Text is logfmt (key=value, space-separated, keys always in the same order); JSON is one object a
// line with the same keys. No byte that a client or upstream sends can end a line, close a quote or
// start a field:
//   text  '"' and '\' get a backslash; control bytes, DEL and bytes above 0x7E become \xNN; in
//   values that are not
//         quoted so do spaces, quotes and '='
//   JSON  as RFC 8259 section 7; bytes that are not UTF-8 become U+FFFD
// Absent values are "-" in text, null in JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/time.h"
#include "filters/flags.h"

namespace outrider::proxy {

// What is known of a finished exchange. The views need to live during the call that formats it
// only.
struct AccessEntry {
    WallTime time;  // when the request's head was complete; whole milliseconds are written (UTC)
    std::string_view listener;
    std::string_view route;
    std::string_view method;
    std::string_view path;  // the target with its query
    std::string_view protocol = "HTTP/1.1";
    int status = 0;  // 0: the client went before a status was sent
    filters::Flags flags;
    std::uint64_t bytes_in = 0;   // of the request's body
    std::uint64_t bytes_out = 0;  // of the response's body
    // Written as milliseconds with three decimals, cut to the microsecond.
    Duration duration{0};
    Duration upstream_duration{-1};  // below zero: nothing was sent upstream
    std::uint32_t attempts = 0;      // sent to the upstream
    std::string_view endpoint;       // host:port of the last attempt
    std::string_view request_id;
    std::string_view idempotency;  // first replayed waited conflict mismatch missing store_error;
                                   // empty without the filter
    std::string_view client;       // the peer's address
};

// What a field may take of a line, after escaping; the rest is cut and "…" put in its place (in
// text no other non-ASCII byte occurs, so that mark cannot be forged).
inline constexpr std::size_t kAccessPathMax = 1024;
inline constexpr std::size_t kAccessFieldMax = 256;  // every other string

// No line is longer, its newline included: at most PIPE_BUF, so that a pipe takes a line whole or
// not at all.
inline constexpr std::size_t kAccessLineMax = 4096;

// Write one line with its newline to out and return its length. cap >= kAccessLineMax is required
// (bytes behind the line may be scribbled on, up to that). No allocation; about 500 instructions
// for a common line.
std::size_t format_text(const AccessEntry& entry, char* out, std::size_t cap);
std::size_t format_json(const AccessEntry& entry, char* out, std::size_t cap);

}  // namespace outrider::proxy
