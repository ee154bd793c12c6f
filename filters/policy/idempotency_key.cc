#include "filters/policy/idempotency_key.h"

#include <algorithm>
#include <cstring>

#include <openssl/crypto.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/random.h"

namespace outrider::policy {

// The field
// ---------------------------------------------------------------------------------------------------------

namespace {

bool printable(char c) {
    return c >= 0x20 && c <= 0x7e;
}
bool lower_alpha(char c) {
    return c >= 'a' && c <= 'z';
}
bool alpha(char c) {
    return lower_alpha(ascii_lower(c));
}
bool token_char(char c) {
    return alpha(c) || ascii_digit(c) || (c != '\0' && std::strchr("!#$%&'*+-.^_`|~:/", c) != nullptr);
}
bool bare_key_char(char c) {
    return printable(c) && c != ' ' && c != '"' && c != ',' && c != ';' && c != '\\';
}

// Takes an Item of RFC 9651 apart from its start. Once something does not fit, `ok` stays false and nothing more is
// taken.
struct ItemReader {
    std::string_view rest;
    bool ok = true;

    bool next_is(char c) const { return ok && !rest.empty() && rest.front() == c; }
    bool take(char c) {
        if (!next_is(c)) return false;
        rest.remove_prefix(1);
        return true;
    }
    void expect(char c) { ok = take(c); }
    template <typename Fits>
    std::string_view take_while(Fits fits) {
        std::size_t size = 0;
        while (ok && size < rest.size() && fits(rest[size])) {
            ++size;
        }
        const std::string_view taken = rest.substr(0, size);
        rest.remove_prefix(size);
        return taken;
    }

    // Section 4.2.5.
    std::string string() {
        std::string value;
        expect('"');
        while (ok && !next_is('"')) {
            const bool escaped = take('\\');
            ok = !rest.empty() && printable(rest.front()) &&
                 (!escaped || rest.front() == '"' || rest.front() == '\\');
            if (!ok) break;
            value += rest.front();
            rest.remove_prefix(1);
        }
        expect('"');
        return value;
    }

    // Section 4.2.4, and 4.2.9 for a Date.
    void number(bool whole_only) {
        take('-');
        const std::size_t whole = take_while(ascii_digit).size();
        ok = ok && whole >= 1 && whole <= 15;
        if (whole_only || !take('.')) return;
        const std::size_t part = take_while(ascii_digit).size();
        ok = ok && whole <= 12 && part >= 1 && part <= 3;
    }

    // Section 4.2.7. Whether the base64 inside is complete is of no interest here.
    void byte_sequence() {
        expect(':');
        take_while([](char c) { return alpha(c) || ascii_digit(c) || c == '+' || c == '/' || c == '='; });
        expect(':');
    }

    // Section 4.2.10; what it decodes to is of no interest here.
    void display_string() {
        const auto hex = [](char c) { return ascii_digit(c) || (c >= 'a' && c <= 'f'); };
        expect('%');
        expect('"');
        while (ok && !next_is('"')) {
            if (take('%')) {
                ok = rest.size() >= 2 && hex(rest[0]) && hex(rest[1]);
                if (ok) rest.remove_prefix(2);
            } else {
                ok = !rest.empty() && printable(rest.front());
                if (ok) rest.remove_prefix(1);
            }
        }
        expect('"');
    }

    // Section 4.2.3.1.
    void bare_item() {
        ok = ok && !rest.empty();
        if (!ok) return;
        const char first = rest.front();
        if (first == '"') {
            string();
        } else if (first == '-' || ascii_digit(first)) {
            number(false);
        } else if (first == ':') {
            byte_sequence();
        } else if (first == '%') {
            display_string();
        } else if (take('?')) {
            ok = take('0') || take('1');
        } else if (take('@')) {
            number(true);
        } else {
            ok = alpha(first) || first == '*';
            take_while(token_char);
        }
    }

    // Section 4.2.3.2.
    void parameters() {
        while (take(';')) {
            take_while([](char c) { return c == ' '; });
            ok = !rest.empty() && (lower_alpha(rest.front()) || rest.front() == '*');
            take_while([](char c) {
                return lower_alpha(c) || ascii_digit(c) || c == '_' || c == '-' || c == '.' || c == '*';
            });
            if (take('=')) bare_item();
        }
    }
};

Error malformed(const char* what) {
    return {std::string("the idempotency key ") + what};
}

Result<std::string> parse_quoted(std::string_view value) {
    ItemReader in{value};
    std::string key = in.string();
    if (!in.ok) return malformed("is not a complete quoted string; inside, only \\\" and \\\\ are escapes");
    if (in.rest.substr(0, 1) == ",") return malformed("must be one string, not a list");
    in.parameters();
    if (!in.ok || !in.rest.empty()) return malformed("must not be followed by anything but parameters");
    return key;
}

}  // namespace

Result<std::string> parse_idempotency_key(std::string_view value, KeySyntax syntax) {
    value = trim_ows(value);
    if (value.empty()) return malformed("is empty");
    for (const char c : value) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7f) return malformed("holds a control byte");
        if (byte > 0x7f) return malformed("holds a byte that is not ASCII");
    }
    std::string key;
    if (value.front() == '"') {
        Result<std::string> quoted = parse_quoted(value);
        if (!quoted) return quoted;
        key = std::move(*quoted);
        if (key.empty()) return malformed("is empty");
    } else {
        if (syntax == KeySyntax::kStrict) return malformed("must be a string in double quotes");
        if (!std::all_of(value.begin(), value.end(), bare_key_char)) {
            return malformed("must be in double quotes if it holds a space or one of \" , ; \\");
        }
        key = value;
    }
    if (key.size() > kIdempotencyKeyMax) return malformed("is longer than 255 characters");
    return key;
}

KeyField read_idempotency_key(std::span<const std::string_view> lines, KeySyntax syntax, bool require_key) {
    if (lines.empty()) return require_key ? KeyField(MissingKey{}) : KeyField(NoKey{});
    // The draft's section 2.1: clients must not send more than one.
    if (lines.size() > 1) return MalformedKey{"there is more than one line with an idempotency key"};
    Result<std::string> key = parse_idempotency_key(lines.front(), syntax);
    if (!key) return MalformedKey{key.error()};
    return SoundKey{std::move(*key)};
}

// Digests
// ---------------------------------------------------------------------------------------------------------

bool operator==(const Digest& a, const Digest& b) {
    return CRYPTO_memcmp(a.bytes.data(), b.bytes.data(), Digest::kSize) == 0;
}

std::string Digest::hex() const {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    out.reserve(2 * kSize);
    for (const std::uint8_t byte : bytes) {
        out += kDigits[byte >> 4];
        out += kDigits[byte & 15];
    }
    return out;
}

std::optional<Digest> parse_digest(std::string_view hex) {
    if (hex.size() != 2 * Digest::kSize) return std::nullopt;
    Digest digest;
    for (std::size_t i = 0; i < hex.size(); ++i) {
        const char c = ascii_lower(hex[i]);
        const bool letter = c >= 'a' && c <= 'f';
        if (!letter && !ascii_digit(c)) return std::nullopt;
        const int nibble = letter ? c - 'a' + 10 : c - '0';
        digest.bytes[i / 2] = static_cast<std::uint8_t>(digest.bytes[i / 2] << 4 | nibble);
    }
    return digest;
}

std::size_t DigestHash::operator()(const Digest& digest) const noexcept {
    std::uint64_t word = 0;
    std::memcpy(&word, digest.bytes.data(), sizeof word);
    return mix64(word ^ secret);
}

DigestWriter::DigestWriter(std::string_view kind) {
    part(kind);
}

void DigestWriter::number(std::uint64_t value) {
    char bytes[8];
    for (char& byte : bytes) {
        byte = static_cast<char>(value & 0xff);
        value >>= 8;
    }
    raw({bytes, sizeof bytes});
}

void DigestWriter::part(std::string_view bytes) {
    number(bytes.size());
    raw(bytes);
}

void DigestWriter::optional_part(const std::optional<std::string_view>& bytes) {
    raw(bytes ? "1" : "0");
    if (bytes) part(*bytes);
}

Digest key_digest(std::span<const ScopeValue> scope, std::string_view route, std::string_view key) {
    DigestWriter writer("outrider key 1");
    writer.number(scope.size());
    for (const ScopeValue& entry : scope) {
        writer.part(to_lower(entry.name));
        writer.optional_part(entry.value);
    }
    writer.part(route);
    writer.part(key);
    return writer.finish();
}

Fingerprint::Fingerprint(std::string_view method, std::string_view path_and_query,
                         const std::optional<std::string_view>& content_type)
    : writer_("outrider fingerprint 1") {
    writer_.part(method);
    writer_.part(path_and_query);
    writer_.optional_part(content_type);
}

}  // namespace outrider::policy
