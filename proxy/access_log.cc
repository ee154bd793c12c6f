#include "proxy/access_log.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstring>

#include "base/bytes.h"
#include "base/check.h"

namespace outrider::proxy {
namespace {

constexpr char kHex[] = "0123456789abcdef";
constexpr std::string_view kCut = "\xE2\x80\xA6";  // …

// The longest line: eight short strings and the path with quotes and marks, six numbers of 20
// digits, every flag, keys.
static_assert(8 * (kAccessFieldMax + 5) + kAccessPathMax + 5 + 6 * 21 + 22 * 4 + 320 <= kAccessLineMax);

enum class Style : std::uint8_t {
    kBare,    // text, not quoted
    kQuoted,  // text between quotes
    kJson,
};

constexpr std::uint64_t repeat(unsigned char byte) {
    return 0x0101010101010101u * byte;
}

// The bytes that plain() looks for. Bare values refuse '!' too, for the sake of one comparison
// less; the slow way puts that right.
template <Style style>
struct Odd {
    static constexpr unsigned char kFirst = style == Style::kBare ? '"' + 1 : ' ';
    static constexpr unsigned char kOther = style == Style::kBare ? '=' : '"';
};

// Whether all eight bytes can be written as they are. Sums carry into a neighbour only from a byte
// that is refused anyway, so no masks are needed but the last ("Bit Twiddling Hacks", haszero, for
// bytes known to be below 0x80).
template <Style style>
constexpr bool plain(std::uint64_t w) {
    const std::uint64_t odd = w | (w - repeat(Odd<style>::kFirst)) | (w + repeat(1)) |
                              ((w ^ repeat(Odd<style>::kOther)) - repeat(1)) |
                              ((w ^ repeat('\\')) - repeat(1));
    return (odd & repeat(0x80)) == 0;
}

// The same for sixteen; a vector type of the compiler's, good on every machine. Bytes above 0x7F
// are negative.
using Sixteen [[gnu::vector_size(16)]] = signed char;
template <Style style>
bool plain(Sixteen v) {
    constexpr auto kFirst = static_cast<signed char>(Odd<style>::kFirst);
    constexpr auto kOther = static_cast<signed char>(Odd<style>::kOther);
    const Sixteen odd = (v < kFirst) | (v == kOther) | (v == '\\') | (v == 0x7F);
    std::array<std::uint64_t, 2> halves;
    std::memcpy(halves.data(), &odd, 16);
    return (halves[0] | halves[1]) == 0;
}

// The first n (1 to 7) bytes of s in memory order, the rest filled with a plain byte.
std::uint64_t load_tail(const char* s, std::size_t n) {
    std::uint64_t w;
    if (n >= 4) {
        std::uint32_t low;
        std::uint32_t high;
        std::memcpy(&low, s, 4);
        std::memcpy(&high, s + n - 4, 4);
        w = low | (std::uint64_t{high} << (8 * (n - 4)));
    } else {
        const auto at = [s](std::size_t i) { return std::uint64_t{static_cast<unsigned char>(s[i])}; };
        w = at(0) | (at(n / 2) << (8 * (n / 2))) | (at(n - 1) << (8 * (n - 1)));
    }
    return w | (repeat('-') << (8 * n));
}

// One character as it is written: the bytes it takes of the input, and its form.
struct Escaped {
    std::size_t taken;
    std::size_t size;
    std::array<char, 8> form;
};

template <Style style>
Escaped escape(std::string_view s) {
    const auto c = static_cast<unsigned char>(s.front());
    const bool bare_special = style == Style::kBare && (c == ' ' || c == '"' || c == '=');
    if (c > 0x1F && c < 0x7F && !bare_special) {
        if (c == '"' || c == '\\') return {1, 2, {'\\', s.front()}};
        return {1, 1, {s.front()}};
    }
    if constexpr (style == Style::kJson) {
        if (c < 0x80) return {1, 6, {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]}};
        const std::size_t n = utf8_sequence(s);
        if (n == 0) return {1, 6, {'\\', 'u', 'f', 'f', 'f', 'd'}};
        Escaped whole{n, n, {}};
        std::memcpy(whole.form.data(), s.data(), n);
        return whole;
    }
    return {1, 4, {'\\', 'x', kHex[c >> 4], kHex[c & 15]}};
}

template <Style style>
[[gnu::noinline]] char* put_escaped_slowly(char* p, const char* end, std::string_view s) {
    while (!s.empty()) {
        const Escaped e = escape<style>(s);
        if (p + e.size > end) {
            std::memcpy(p, kCut.data(), kCut.size());
            return p + kCut.size();
        }
        std::memcpy(p, e.form.data(), 8);
        p += e.size;
        s.remove_prefix(e.taken);
    }
    return p;
}

// Copies while all is plain, whole words of type Word at a time, the last overlapping the one
// before. n is at least one word. Returns the bytes copied: n, or less where a word has something
// to escape.
template <Style style, typename Word>
std::size_t copy_plain(char* p, const char* s, std::size_t n) {
    const std::size_t last = n - sizeof(Word);
    for (std::size_t done = 0;;) {
        Word w;
        std::memcpy(&w, s + done, sizeof w);
        if (!plain<style>(w)) [[unlikely]]
            return done;
        std::memcpy(p + done, &w, sizeof w);
        if (done == last) return n;
        done = std::min(done + sizeof(Word), last);
    }
}

// Writes s, at most `max` bytes of output and then the mark of a cut. A string below eight bytes is
// written as a whole word, which the slack behind a line takes.
template <Style style>
char* put_escaped(char* p, std::string_view s, std::size_t max) {
    static_assert(std::endian::native == std::endian::little);
    const std::size_t n = s.size();
    std::size_t done = 0;
    if (n <= max) [[likely]] {
        if (n >= 16) {
            done = copy_plain<style, Sixteen>(p, s.data(), n);
        } else if (n >= 8) {
            done = copy_plain<style, std::uint64_t>(p, s.data(), n);
        } else if (n > 0) {
            const std::uint64_t w = load_tail(s.data(), n);
            if (plain<style>(w)) [[likely]] {
                std::memcpy(p, &w, 8);
                done = n;
            }
        }
        if (done == n) [[likely]]
            return p + n;
    }
    return put_escaped_slowly<style>(p + done, p + max, {s.data() + done, n - done});
}

// "2026-01-31T12:00:00." of a second; consecutive lines mostly share it, so each thread keeps its
// last one.
constexpr std::size_t kSecondText = 20;
struct SecondCache {
    std::int64_t second = -1;
    char text[kSecondText] = {};
};
thread_local SecondCache cached_second;

void put_digits(char* at, unsigned value, int width) {
    for (int i = width - 1; i >= 0; --i) {
        at[i] = static_cast<char>('0' + value % 10);
        value /= 10;
    }
}

void fill_second(SecondCache& cache, std::int64_t second) {
    using std::chrono::days;
    using std::chrono::seconds;
    const std::chrono::sys_seconds time{seconds(second)};
    const auto day = std::chrono::floor<days>(time);
    const std::chrono::year_month_day date(day);
    const auto of_day = static_cast<unsigned>((time - day).count());
    std::memcpy(cache.text, "0000-00-00T00:00:00.", kSecondText);
    put_digits(cache.text, static_cast<unsigned>(static_cast<int>(date.year())) % 10000, 4);
    put_digits(cache.text + 5, static_cast<unsigned>(date.month()), 2);
    put_digits(cache.text + 8, static_cast<unsigned>(date.day()), 2);
    put_digits(cache.text + 11, of_day / 3600, 2);
    put_digits(cache.text + 14, of_day / 60 % 60, 2);
    put_digits(cache.text + 17, of_day % 60, 2);
    cache.second = second;
}

char* put_thousandths(char* p, unsigned value) {
    p[0] = static_cast<char>('0' + value / 100);
    p[1] = static_cast<char>('0' + value / 10 % 10);
    p[2] = static_cast<char>('0' + value % 10);
    return p + 3;
}

// One line under construction. Each field brings its own separator and key for either form.
template <bool json>
class Line {
  public:
    explicit Line(char* out) : start_(out), p_(out) {}

    template <std::size_t N>
    void literal(const char (&text)[N]) {
        std::memcpy(p_, text, N - 1);
        p_ += N - 1;
    }
    template <std::size_t T, std::size_t J>
    void key(const char (&text)[T], const char (&json_text)[J]) {
        if constexpr (json) {
            literal(json_text);
        } else {
            literal(text);
        }
    }

    void time(WallTime t) {
        const std::int64_t micros = t.unix_micros > 0 ? t.unix_micros : 0;
        const std::int64_t second = micros / 1'000'000;
        SecondCache& cache = cached_second;
        if (cache.second != second) [[unlikely]]
            fill_second(cache, second);
        if constexpr (json) *p_++ = '"';
        std::memcpy(p_, cache.text, kSecondText);
        p_ = put_thousandths(p_ + kSecondText, static_cast<unsigned>(micros - second * 1'000'000) / 1000);
        *p_++ = 'Z';
        if constexpr (json) *p_++ = '"';
    }

    // A string that common values leave without quotes in text.
    void word(std::string_view s) {
        if constexpr (json) {
            in_quotes(s, kAccessFieldMax);
        } else if (s.empty()) {
            none();
        } else {
            p_ = put_escaped<Style::kBare>(p_, s, kAccessFieldMax);
        }
    }
    void in_quotes(std::string_view s, std::size_t max) {
        if (s.empty()) return none();
        *p_++ = '"';
        constexpr Style kStyle = json ? Style::kJson : Style::kQuoted;
        p_ = put_escaped<kStyle>(p_, s, max);
        *p_++ = '"';
    }
    void none() {
        if constexpr (json) {
            literal("null");
        } else {
            *p_++ = '-';
        }
    }

    void number(std::uint64_t n) {
        if (n < 10) {
            *p_++ = static_cast<char>('0' + n);
        } else {
            p_ = std::to_chars(p_, p_ + 20, n).ptr;
        }
    }
    void milliseconds(Duration d) {
        const std::uint64_t micros = d.count() > 0 ? static_cast<std::uint64_t>(d.count()) / 1000 : 0;
        const std::uint64_t whole = micros / 1000;
        number(whole);
        *p_++ = '.';
        p_ = put_thousandths(p_, static_cast<unsigned>(micros - whole * 1000));
    }

    void flags(filters::Flags set) {
        if (set.empty()) return none();
        if constexpr (json) *p_++ = '"';
        set.for_each([this](filters::Flag flag) {
            const std::string_view name = filters::flag_name(flag);
            std::memcpy(p_, name.data(), name.size());
            p_ += name.size();
            *p_++ = ',';
        });
        --p_;
        if constexpr (json) *p_++ = '"';
    }

    std::size_t size() const { return static_cast<std::size_t>(p_ - start_); }

  private:
    char* start_;
    char* p_;
};

template <bool json>
std::size_t format(const AccessEntry& e, char* out, std::size_t cap) {
    require(cap >= kAccessLineMax, "the buffer takes the longest line");
    Line<json> line(out);
    line.key("time=", "{\"time\":");
    line.time(e.time);
    line.key(" listener=", ",\"listener\":");
    line.word(e.listener);
    line.key(" route=", ",\"route\":");
    line.word(e.route);
    line.key(" method=", ",\"method\":");
    line.word(e.method);
    line.key(" path=", ",\"path\":");
    line.in_quotes(e.path, kAccessPathMax);
    line.key(" protocol=", ",\"protocol\":");
    line.word(e.protocol);
    line.key(" status=", ",\"status\":");
    line.number(e.status > 0 ? static_cast<std::uint64_t>(e.status) : 0);
    line.key(" flags=", ",\"flags\":");
    line.flags(e.flags);
    line.key(" bytes_in=", ",\"bytes_in\":");
    line.number(e.bytes_in);
    line.key(" bytes_out=", ",\"bytes_out\":");
    line.number(e.bytes_out);
    line.key(" duration_ms=", ",\"duration_ms\":");
    line.milliseconds(e.duration);
    line.key(" upstream_ms=", ",\"upstream_ms\":");
    if (e.upstream_duration.count() < 0) {
        line.none();
    } else {
        line.milliseconds(e.upstream_duration);
    }
    line.key(" attempts=", ",\"attempts\":");
    line.number(e.attempts);
    line.key(" endpoint=", ",\"endpoint\":");
    line.word(e.endpoint);
    line.key(" request_id=", ",\"request_id\":");
    line.in_quotes(e.request_id, kAccessFieldMax);
    line.key(" idempotency=", ",\"idempotency\":");
    line.word(e.idempotency);
    line.key(" client=", ",\"client\":");
    line.word(e.client);
    line.key("\n", "}\n");
    return line.size();
}

}  // namespace

std::size_t format_text(const AccessEntry& entry, char* out, std::size_t cap) {
    return format<false>(entry, out, cap);
}

std::size_t format_json(const AccessEntry& entry, char* out, std::size_t cap) {
    return format<true>(entry, out, cap);
}

}  // namespace outrider::proxy
