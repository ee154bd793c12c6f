#include "filters/policy/idempotency_record.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/overloaded.h"

namespace outrider::policy {
namespace {

enum class Type : std::uint8_t {
    kInFlight = 1,
    kDone = 2,
    kDoneNoAnswer = 3,
    kUnknown = 4,
    kReleased = 5,
    kForgotten = 6,
};

// Beyond what parse_duration() reads, and far below where nanoseconds overflow.
constexpr std::int64_t kWindowMaxMicros = std::int64_t{20} * 366 * 24 * 3600 * 1'000'000;
constexpr std::int64_t kWallMaxMicros = std::int64_t{1} << 53;  // the year 2255

struct Writer {
    std::string& out;

    template <typename T>
    void number(T value) {
        char bytes[sizeof(T)];
        for (std::size_t i = 0; i < sizeof(T); ++i) {
            bytes[i] = static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xff);
        }
        out.append(bytes, sizeof bytes);
    }
    void type(Type type) { number(static_cast<std::uint8_t>(type)); }
    void digest(const Digest& digest) {
        out.append(reinterpret_cast<const char*>(digest.bytes.data()), Digest::kSize);
    }
    void text(std::string_view bytes) {
        require(bytes.size() <= std::numeric_limits<std::uint32_t>::max(),
                "a recorded response is below 4 GiB");
        number(static_cast<std::uint32_t>(bytes.size()));
        out += bytes;
    }
    void kept(const KeptKey& kept) {
        digest(kept.key);
        digest(kept.fingerprint);
        number(kept.generation.value);
        number(kept.claimed.unix_micros);
        number(kept.expires.unix_micros);
    }
};

// Once something does not fit, `problem` says what, and only zeros come out.
struct Reader {
    std::string_view rest;
    const char* problem = nullptr;

    void refuse(const char* what) {
        if (problem == nullptr) problem = what;
    }
    std::string_view bytes(std::size_t size) {
        if (size > rest.size()) refuse("is cut short");
        if (problem != nullptr) return {};
        const std::string_view taken = rest.substr(0, size);
        rest.remove_prefix(size);
        return taken;
    }
    template <typename T>
    T number() {
        const std::string_view taken = bytes(sizeof(T));
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < taken.size(); ++i) {
            value |= std::uint64_t{static_cast<std::uint8_t>(taken[i])} << (8 * i);
        }
        return static_cast<T>(value);
    }
    Digest digest() {
        Digest digest;
        const std::string_view taken = bytes(Digest::kSize);
        if (!taken.empty()) std::memcpy(digest.bytes.data(), taken.data(), Digest::kSize);
        return digest;
    }
    std::string_view text() { return bytes(number<std::uint32_t>()); }
    KeptKey kept() {
        KeptKey kept;
        kept.key = digest();
        kept.fingerprint = digest();
        kept.generation = {number<std::uint64_t>()};
        kept.claimed = {number<std::int64_t>()};
        kept.expires = {number<std::int64_t>()};
        const std::int64_t claimed = kept.claimed.unix_micros;
        const std::int64_t expires = kept.expires.unix_micros;
        if (claimed < 0 || expires > kWallMaxMicros || expires < claimed ||
            expires - claimed > kWindowMaxMicros) {
            refuse("has times that cannot be");
        }
        return kept;
    }
    std::uint16_t status() {
        const auto status = number<std::uint16_t>();
        if (status < 100 || status > 999) refuse("has a status that cannot be");
        return status;
    }
    UnknownWhy why() {
        const auto value = number<std::uint8_t>();
        if (value > static_cast<std::uint8_t>(UnknownWhy::kRestart)) refuse("has an unknown reason");
        return static_cast<UnknownWhy>(value);
    }
};

DoneRecord read_done(Reader& in, bool with_answer) {
    DoneRecord record;
    record.kept = in.kept();
    record.status = in.status();
    if (!with_answer) return record;
    const std::string_view headers = in.text();
    const std::string_view body = in.text();
    if (in.problem != nullptr) return record;
    record.response =
        std::make_shared<const StoredResponse>(StoredResponse{std::string(headers), std::string(body)});
    return record;
}

// The evaluation order of a braced list is that of its members, which is the layout's.
Record read_record(Reader& in, Type type) {
    switch (type) {
        case Type::kInFlight:
            return InFlightRecord{in.kept(), {in.number<std::uint64_t>()}};
        case Type::kDone:
            return read_done(in, true);
        case Type::kDoneNoAnswer:
            return read_done(in, false);
        case Type::kUnknown:
            return UnknownRecord{in.kept(), in.why()};
        case Type::kReleased:
            return ReleasedRecord{in.digest(), {in.number<std::uint64_t>()}};
        case Type::kForgotten:
            return ForgottenRecord{in.digest()};
    }
    in.refuse("is of a type that this version does not know");
    return ForgottenRecord{};
}

std::int64_t micros_of(Duration d) {
    return std::chrono::duration_cast<std::chrono::microseconds>(d).count();
}
WallTime wall_of(Instant t, const ClockAnchor& anchor) {
    return {
        std::clamp<std::int64_t>(anchor.wall.unix_micros + micros_of(t - anchor.instant), 0, kWallMaxMicros)};
}

}  // namespace

const Digest& key_of(const Record& record) {
    return std::visit(Overloaded{[](const ReleasedRecord& r) -> const Digest& { return r.key; },
                                 [](const ForgottenRecord& r) -> const Digest& { return r.key; },
                                 [](const auto& r) -> const Digest& { return r.kept.key; }},
                      record);
}

void append_record(std::string& out, const Record& record) {
    Writer to{out};
    std::visit(Overloaded{
                   [&](const InFlightRecord& r) {
                       to.type(Type::kInFlight);
                       to.kept(r.kept);
                       to.number(r.token.value);
                   },
                   [&](const DoneRecord& r) {
                       to.type(r.response != nullptr ? Type::kDone : Type::kDoneNoAnswer);
                       to.kept(r.kept);
                       to.number(r.status);
                       if (r.response == nullptr) return;
                       to.text(r.response->headers);
                       to.text(r.response->body);
                   },
                   [&](const UnknownRecord& r) {
                       to.type(Type::kUnknown);
                       to.kept(r.kept);
                       to.number(static_cast<std::uint8_t>(r.why));
                   },
                   [&](const ReleasedRecord& r) {
                       to.type(Type::kReleased);
                       to.digest(r.key);
                       to.number(r.generation.value);
                   },
                   [&](const ForgottenRecord& r) {
                       to.type(Type::kForgotten);
                       to.digest(r.key);
                   },
               },
               record);
}

Result<Record> decode_record(std::string_view bytes) {
    Reader in{bytes};
    const auto type = in.number<std::uint8_t>();
    Record record = read_record(in, static_cast<Type>(type));
    if (!in.rest.empty()) in.refuse("goes on after its end");
    if (in.problem != nullptr) {
        return Error{"an idempotency record of type " + std::to_string(type) + " and " +
                     std::to_string(bytes.size()) + " bytes " + in.problem};
    }
    return record;
}

Record record_of(const Digest& key, const KeyState& state, const ClockAnchor& anchor) {
    const KeptKey kept{key, state.fingerprint, state.owner.generation, wall_of(state.claimed, anchor),
                       wall_of(state.expires, anchor)};
    switch (state.phase) {
        case KeyPhase::kInFlight:
            return InFlightRecord{kept, state.owner.token};
        case KeyPhase::kDone:
            return DoneRecord{kept, state.status, state.response};
        case KeyPhase::kUnknown:
            return UnknownRecord{kept, state.why};
        case KeyPhase::kAbsent:
            break;
    }
    require(false, "an absent key has no record of its state");
    return ForgottenRecord{key};
}

KeyState state_after_restart(const Record& record, const ClockAnchor& anchor, Instant now) {
    const auto kept_state = [&](const KeptKey& kept) {
        const std::int64_t wall_now = wall_of(now, anchor).unix_micros;
        const std::int64_t window = kept.expires.unix_micros - kept.claimed.unix_micros;
        const std::int64_t left = std::clamp<std::int64_t>(kept.expires.unix_micros - wall_now, 0,
                                                           std::max<std::int64_t>(window, 0));
        KeyState state;
        if (left == 0) return state;
        state.phase = KeyPhase::kUnknown;
        state.why = UnknownWhy::kRestart;
        state.fingerprint = kept.fingerprint;
        state.owner = {{}, kept.generation};
        state.expires = now + std::chrono::microseconds(left);
        state.claimed = state.expires - std::chrono::microseconds(window);
        return state;
    };
    return std::visit(Overloaded{
                          [&](const InFlightRecord& r) { return kept_state(r.kept); },
                          [&](const DoneRecord& r) {
                              KeyState state = kept_state(r.kept);
                              if (state.phase == KeyPhase::kAbsent) return state;
                              state.phase = KeyPhase::kDone;
                              state.status = r.status;
                              state.response = r.response;
                              return state;
                          },
                          [&](const UnknownRecord& r) {
                              KeyState state = kept_state(r.kept);
                              state.why = r.why;
                              return state;
                          },
                          [](const ReleasedRecord&) { return KeyState{}; },
                          [](const ForgottenRecord&) { return KeyState{}; },
                      },
                      record);
}

}  // namespace outrider::policy
