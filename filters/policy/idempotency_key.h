// What makes two requests "the same": the key that the client sent and the fingerprint of what it sent with it. Pure.
//
// The field is that of draft-ietf-httpapi-idempotency-key-header-07: an Item of RFC 9651 whose value is a String.
//   strict   exactly that: "8e03978e-40d5-43e8-bc93-6894a57f9324"
//   lenient  also without the quotes, as most clients in use send it: 1 or more bytes of printable ASCII other than
//            space and " , ; \ (so a list, parameters or a half-quoted string are not taken for a key)
// The quotes and escapes are not part of the key: abc and "abc" are one key, so a client that begins to quote keeps
// what it has recorded.
//
// Parameters after a String ("k";v=1) must be well-formed (RFC 9651 section 4.2.3.2) and are then ignored: the draft
// defines none, and a receiver built on a library for structured fields ignores what it does not know.
//
// Digests are SHA-256, since an attacker chooses what goes in. Every part but a body is preceded by its length in 8
// bytes, little-endian, and the two kinds begin with different words: no two inputs are the same bytes.
//   key          "outrider key 1", number of scope values, for each: name in lower case, '1' and value or '0'; route;
//                key
//   fingerprint  "outrider fingerprint 1", method, path and query, '1' and content type or '0'; body (no length: it
//                comes last, in pieces)
// They are stored: another layout needs another number, and makes every recorded key a new one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"
#include "base/sha256.h"

namespace outrider::policy {

inline constexpr std::size_t kIdempotencyKeyMax = 255;  // characters, without quotes and escapes

enum class KeySyntax : std::uint8_t { kStrict, kLenient };

// What the field's lines say. The reason is a sentence for the client.
struct NoKey {};
struct MissingKey {};  // none, and the route requires one: 400
struct MalformedKey {  // 400, required or not: a client that sends a broken key believes that it is protected
    std::string reason;
};
struct SoundKey {
    std::string key;
};
using KeyField = std::variant<NoKey, MissingKey, MalformedKey, SoundKey>;

// `lines`: the value of each line of the field, in any number.
KeyField read_idempotency_key(std::span<const std::string_view> lines, KeySyntax syntax, bool require_key);

// The key of one line.
Result<std::string> parse_idempotency_key(std::string_view value, KeySyntax syntax);

struct Digest {
    static constexpr std::size_t kSize = 32;
    std::array<std::uint8_t, kSize> bytes{};

    std::string hex() const;  // 64 lower-case digits
    // In a time that does not depend on where they differ.
    friend bool operator==(const Digest& a, const Digest& b);
    // For ordered containers; not in constant time.
    friend bool operator<(const Digest& a, const Digest& b) { return a.bytes < b.bytes; }
};

std::optional<Digest> parse_digest(std::string_view hex);  // either case

// For tables. Clients choose what is hashed, so `secret` (of this process) decides about the place in the table.
struct DigestHash {
    std::uint64_t secret = 0;
    std::size_t operator()(const Digest& digest) const noexcept;
};

// One entry of the route's `scope`: who the caller is. An absent value is not an empty one. Of a field with several
// lines the caller passes one value, joined by ", " (RFC 9110 section 5.3).
struct ScopeValue {
    std::string_view name;  // as configured ("header:Authorization"); case does not matter
    std::optional<std::string_view> value;
};

Digest key_digest(std::span<const ScopeValue> scope, std::string_view route, std::string_view key);

// SHA-256 over length-prefixed parts.
class DigestWriter {
  public:
    explicit DigestWriter(std::string_view kind);

    void number(std::uint64_t value);
    void part(std::string_view bytes);
    void optional_part(const std::optional<std::string_view>& bytes);
    void raw(std::string_view bytes) { sha_.add(bytes); }
    Digest finish() { return {sha_.finish()}; }  // once; nothing may follow

  private:
    Sha256 sha_;
};

// What a repeated request must repeat. Fed while the body comes in; the pieces' borders do not matter.
class Fingerprint {
  public:
    // As the client sent them, before any rewrite.
    Fingerprint(std::string_view method, std::string_view path_and_query,
                const std::optional<std::string_view>& content_type);

    void body(std::string_view piece) { writer_.raw(piece); }
    Digest finish() { return writer_.finish(); }  // once

  private:
    DigestWriter writer_;
};

}  // namespace outrider::policy
