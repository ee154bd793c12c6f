#include "filters/policy/idempotency_record.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

Digest digest_of(std::uint8_t byte) {
    Digest digest;
    digest.bytes.fill(byte);
    return digest;
}

const KeptKey kKept{digest_of(1), digest_of(2), {3}, {1'700'000'000'000'000}, {1'700'086'400'000'000}};

std::shared_ptr<const StoredResponse> response(std::string headers, std::string body) {
    return std::make_shared<const StoredResponse>(StoredResponse{std::move(headers), std::move(body)});
}

std::vector<Record> one_of_each() {
    return {InFlightRecord{kKept, {0x1122334455667788}},
            DoneRecord{kKept, 201, response("a: b\r\n", "body")},
            DoneRecord{kKept, 204, response("", "")},
            DoneRecord{kKept, 200, response("h", std::string(300'000, 'x'))},
            DoneRecord{kKept, 502, nullptr},
            UnknownRecord{kKept, UnknownWhy::kCut},
            UnknownRecord{kKept, UnknownWhy::kRestart},
            ReleasedRecord{digest_of(4), {5}},
            ForgottenRecord{digest_of(6)}};
}

std::string encoded(const Record& record) {
    std::string bytes;
    append_record(bytes, record);
    return bytes;
}

TEST(IdempotencyRecord, IsReadAsItWasWritten) {
    for (const Record& record : one_of_each()) {
        const std::string bytes = encoded(record);
        const Result<Record> read = decode_record(bytes);
        ASSERT_TRUE(read.ok()) << read.error();
        EXPECT_EQ(read.value().index(), record.index());
        EXPECT_EQ(key_of(read.value()), key_of(record));
        // The encoding holds every member, so equal bytes are equal records.
        EXPECT_EQ(encoded(read.value()), bytes);
    }
    const Result<Record> done = decode_record(encoded(one_of_each()[1]));
    const auto& value = std::get<DoneRecord>(done.value());
    EXPECT_EQ(value.status, 201);
    EXPECT_EQ(*value.response, (StoredResponse{"a: b\r\n", "body"}));
    EXPECT_EQ(value.kept.fingerprint, digest_of(2));
    EXPECT_EQ(value.kept.generation, Generation{3});
    EXPECT_EQ(value.kept.claimed.unix_micros, kKept.claimed.unix_micros);
    EXPECT_EQ(value.kept.expires.unix_micros, kKept.expires.unix_micros);
    const Result<Record> none = decode_record(encoded(one_of_each()[4]));
    EXPECT_EQ(std::get<DoneRecord>(none.value()).response, nullptr);
}

TEST(IdempotencyRecord, HasTheLayoutOfTheHeader) {
    const KeptKey kept{digest_of(0xa1), digest_of(0xb2), {0x0807060504030201}, {0x10}, {0x20}};
    const std::string head = std::string(32, '\xa1') + std::string(32, '\xb2') +
                             std::string("\x01\x02\x03\x04\x05\x06\x07\x08", 8) +
                             std::string("\x10\0\0\0\0\0\0\0", 8) + std::string("\x20\0\0\0\0\0\0\0", 8);
    EXPECT_EQ(encoded(InFlightRecord{kept, {0xff}}), "\x01" + head + std::string("\xff\0\0\0\0\0\0\0", 8));
    EXPECT_EQ(encoded(DoneRecord{kept, 0x0101, response("hh", "b")}),
              "\x02" + head + std::string("\x01\x01\x02\0\0\0hh\x01\0\0\0b", 13));
    EXPECT_EQ(encoded(DoneRecord{kept, 0x0101, nullptr}), "\x03" + head + "\x01\x01");
    EXPECT_EQ(encoded(UnknownRecord{kept, UnknownWhy::kLeasePassed}), "\x04" + head + "\x01");
    EXPECT_EQ(encoded(ReleasedRecord{kept.key, {2}}),
              "\x05" + std::string(32, '\xa1') + std::string("\x02\0\0\0\0\0\0\0", 8));
    EXPECT_EQ(encoded(ForgottenRecord{kept.key}), "\x06" + std::string(32, '\xa1'));
}

TEST(IdempotencyRecord, EveryCutAndEveryAdditionIsRefused) {
    for (const Record& record : one_of_each()) {
        const std::string bytes = encoded(record);
        if (bytes.size() > 1000) continue;
        for (std::size_t size = 0; size < bytes.size(); ++size) {
            // In a buffer of its own size, for the sanitizer.
            const std::vector<char> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
            EXPECT_FALSE(decode_record({cut.data(), cut.size()}).ok()) << size;
        }
        EXPECT_FALSE(decode_record(bytes + '\0').ok());
    }
    EXPECT_EQ(decode_record(encoded(one_of_each()[7]).substr(0, 40)).error(),
              "an idempotency record of type 5 and 40 bytes is cut short");
    EXPECT_EQ(decode_record(encoded(one_of_each()[8]) + "x").error(),
              "an idempotency record of type 6 and 34 bytes goes on after its end");
}

TEST(IdempotencyRecord, WhatCannotBeIsRefused) {
    const auto error = [](const Record& record) {
        const Result<Record> read = decode_record(encoded(record));
        return read.ok() ? std::string() : read.error().substr(read.error().find("bytes"));
    };
    const std::string times = "bytes has times that cannot be";
    const auto with_times = [](std::int64_t claimed, std::int64_t expires) {
        KeptKey kept = kKept;
        kept.claimed.unix_micros = claimed;
        kept.expires.unix_micros = expires;
        return InFlightRecord{kept, {}};
    };
    EXPECT_EQ(error(with_times(2, 1)), times);
    EXPECT_EQ(error(with_times(-1, 1)), times);
    EXPECT_EQ(error(with_times(0, INT64_MAX)), times);
    EXPECT_EQ(error(with_times(INT64_MIN, INT64_MAX)), times);
    EXPECT_EQ(error(with_times(0, std::int64_t{1} << 53)), times);
    EXPECT_EQ(error(with_times(7, 7)), "");
    EXPECT_EQ(error(DoneRecord{kKept, 99, nullptr}), "bytes has a status that cannot be");
    EXPECT_EQ(error(DoneRecord{kKept, 1000, nullptr}), "bytes has a status that cannot be");
    EXPECT_EQ(error(UnknownRecord{kKept, static_cast<UnknownWhy>(3)}), "bytes has an unknown reason");
    std::string other = encoded(one_of_each()[8]);
    for (const int type : {0, 7, 255}) {
        other[0] = static_cast<char>(type);
        EXPECT_EQ(decode_record(other).error(),
                  "an idempotency record of type " + std::to_string(type) +
                      " and 33 bytes is of a type that this version does not know");
    }
    // A size that is a lie is not believed before the bytes are there.
    std::string lie = encoded(one_of_each()[2]);
    lie[1 + 88 + 2 + 3] = '\xff';
    EXPECT_FALSE(decode_record(lie).ok());
}

TEST(IdempotencyRecord, GarbageIsReadWithinBounds) {
    Random random{7};
    const std::vector<Record> records = one_of_each();
    std::size_t accepted = 0;
    for (int round = 0; round < 200'000; ++round) {
        std::string bytes;
        if (round % 2 == 0) {
            bytes.resize(random.below(200));
            for (char& c : bytes) {
                c = static_cast<char>(random.next());
            }
            if (!bytes.empty()) bytes[0] = static_cast<char>(random.below(8));
        } else {
            const std::size_t pick = random.below(records.size());
            if (pick == 3) continue;
            bytes = encoded(records[pick]);
            for (std::uint64_t changes = 1 + random.below(3); changes > 0; --changes) {
                bytes[random.below(bytes.size())] = static_cast<char>(random.next());
            }
        }
        const std::vector<char> exact(bytes.begin(), bytes.end());
        const Result<Record> read = decode_record({exact.data(), exact.size()});
        if (!read) continue;
        ++accepted;
        // What is accepted is written as it was read.
        ASSERT_EQ(encoded(read.value()), bytes) << round;
    }
    EXPECT_GT(accepted, 1000u);
}

// Restart
// ---------------------------------------------------------------------------------------------------------

const Instant t0{5000s};
const ClockAnchor kAnchor{t0, {1'700'000'000'000'000}};

KeyState in_flight_state() {
    KeyState state;
    state.phase = KeyPhase::kInFlight;
    state.fingerprint = digest_of(2);
    state.owner = {{11}, {12}};
    state.claimed = t0 + 10s;
    state.lease_end = t0 + 40s;
    state.expires = t0 + 10s + 24h;
    return state;
}

KeyState after_restart(const KeyState& state, const ClockAnchor& anchor, Instant now) {
    const Result<Record> read = decode_record(encoded(record_of(digest_of(1), state, kAnchor)));
    return state_after_restart(read.value(), anchor, now);
}

TEST(IdempotencyRestart, InFlightBecomesUnknownAndTheRestStaysWhatItIs) {
    KeyState state = in_flight_state();
    // Another process: its monotonic clock has another origin.
    const Instant later{77s};
    const ClockAnchor anchor{later, {kAnchor.wall.unix_micros + 3'600'000'000}};
    const Instant expires = later - 1h + 10s + 24h;

    KeyState read = after_restart(state, anchor, later);
    EXPECT_EQ(read.phase, KeyPhase::kUnknown);
    EXPECT_EQ(read.why, UnknownWhy::kRestart);
    EXPECT_EQ(read.fingerprint, state.fingerprint);
    EXPECT_EQ(read.owner, (Owner{{}, {12}}));
    EXPECT_EQ(read.expires, expires);
    EXPECT_EQ(read.claimed, expires - 24h);

    state.phase = KeyPhase::kUnknown;
    state.why = UnknownWhy::kCut;
    read = after_restart(state, anchor, later);
    EXPECT_EQ(read.phase, KeyPhase::kUnknown);
    EXPECT_EQ(read.why, UnknownWhy::kCut);

    state.phase = KeyPhase::kDone;
    state.status = 418;
    EXPECT_EQ(after_restart(state, anchor, later).response, nullptr);
    state.response = response("h", "b");
    read = after_restart(state, anchor, later);
    EXPECT_EQ(read.phase, KeyPhase::kDone);
    EXPECT_EQ(read.status, 418);
    EXPECT_EQ(*read.response, *state.response);
    EXPECT_EQ(read.expires, expires);
}

TEST(IdempotencyRestart, AKeyWhoseWindowIsOverIsAbsent) {
    const KeyState state = in_flight_state();
    const Instant now{0s};
    const auto at = [&](std::int64_t micros) {
        return after_restart(state, {now, {kAnchor.wall.unix_micros + micros}}, now);
    };
    constexpr std::int64_t kEnd = (24 * 3600 + 10) * std::int64_t{1'000'000};
    EXPECT_EQ(at(kEnd).phase, KeyPhase::kAbsent);
    EXPECT_EQ(at(kEnd * 100).phase, KeyPhase::kAbsent);
    EXPECT_EQ(at(kEnd - 1).phase, KeyPhase::kUnknown);
    EXPECT_EQ(at(kEnd - 1).expires, now + 1us);
}

TEST(IdempotencyRestart, AWallClockThatWentBackKeepsAKeyForOneWindowAtMost) {
    const KeyState state = in_flight_state();
    const Instant now{0s};
    const KeyState read = after_restart(state, {now, {0}}, now);
    EXPECT_EQ(read.phase, KeyPhase::kUnknown);
    EXPECT_EQ(read.expires, now + 24h);
    EXPECT_EQ(read.claimed, now);
}

TEST(IdempotencyRestart, ReleasedAndForgottenAreAbsent) {
    EXPECT_EQ(state_after_restart(ReleasedRecord{digest_of(1), {1}}, kAnchor, t0).phase, KeyPhase::kAbsent);
    EXPECT_EQ(state_after_restart(ForgottenRecord{digest_of(1)}, kAnchor, t0).phase, KeyPhase::kAbsent);
}

}  // namespace
}  // namespace outrider::policy
