// Builds a message head as text into memory the caller has sized.
#pragma once

#include <charconv>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/http/message.h"

namespace outrider::http {

// The line in front of a chunk's data (RFC 9112 section 7.1).
inline std::string_view chunk_line(char (&buffer)[24], std::size_t size) {
    char* end = std::to_chars(buffer, buffer + 16, size, 16).ptr;
    *end++ = '\r';
    *end++ = '\n';
    return {buffer, static_cast<std::size_t>(end - buffer)};
}

// Writes without bounds checks: the caller reserves bound() bytes and more for what it adds itself.
class HeadWriter {
  public:
    explicit HeadWriter(char* out) : begin_(out), out_(out) {}

    void text(std::string_view s) {
        std::memcpy(out_, s.data(), s.size());
        out_ += s.size();
    }
    void number(std::uint64_t n) { out_ = std::to_chars(out_, out_ + 20, n).ptr; }
    void field(std::string_view name, std::string_view value) {
        text(name);
        text(": ");
        text(value);
        text("\r\n");
    }
    // Every field of the head that is not dropped. Lines that already have the canonical form "name: value CRLF" are
    // copied in runs; the rest is rebuilt from its parsed form.
    void fields(const Head& head) {
        const char* run = nullptr;
        const char* run_end = nullptr;
        for (const FieldRef& f : head.all()) {
            if (f.dropped) continue;
            const char* name = head.bytes + f.name_begin;
            const char* value = head.bytes + f.value_begin;
            const char* end = value + f.value_size;
            const bool canonical = f.value_begin == f.name_begin + f.name_size + 2u && value[-1] == ' ' &&
                                   value[-2] == ':' && end[0] == '\r';
            if (!canonical) {
                // What came before stays before: the order of lines of one name has a meaning (RFC 9110 section 5.3).
                if (run != nullptr) text({run, static_cast<std::size_t>(run_end - run)});
                run = run_end = nullptr;
                field(head.name(f), head.value(f));
                continue;
            }
            if (name != run_end) {
                if (run != nullptr) text({run, static_cast<std::size_t>(run_end - run)});
                run = name;
            }
            run_end = end + 2;
        }
        if (run != nullptr) text({run, static_cast<std::size_t>(run_end - run)});
    }

    // An upper bound for fields().
    static std::size_t bound(const Head& head) { return head.bytes_size + 3 * std::size_t{head.field_count}; }

    std::size_t size() const { return static_cast<std::size_t>(out_ - begin_); }

  private:
    char* begin_;
    char* out_;
};

}  // namespace outrider::http
