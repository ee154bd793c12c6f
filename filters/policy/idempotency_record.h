// What a store keeps of a key, as values and as bytes. Pure; the bytes go into a log that guards them against
// corruption and says where one record ends.
//
// A record holds everything that is to be known of its key, so the newest one about a key is enough and all older ones
// may be deleted. Released and forgotten void the older ones; they need not outlive them.
//
// Layout: 1 byte type, then, integers little-endian (times: 8 bytes, microseconds since 1970):
//   kept      key 32, fingerprint 32, generation 8, claimed 8, expires 8
//   1  in flight         kept, token 8
//   2  done              kept, status 2, size of headers 4, headers, size of body 4, body
//   3  done, no answer   kept, status 2
//   4  unknown           kept, why 1
//   5  released          key 32, generation 8
//   6  forgotten         key 32
// Nothing follows. A type's layout never changes; another layout is another type.
//
// Times are of the wall clock, since a record outlives its process: set forward while the process is down, it lets
// keys expire early; set back, it keeps them longer, but never longer than a whole window after the restart. While the
// process runs, setting it changes nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"
#include "base/time.h"
#include "filters/policy/idempotency.h"

namespace outrider::policy {

struct KeptKey {
    Digest key;
    Digest fingerprint;
    Generation generation;
    WallTime claimed;
    WallTime expires;
};

struct InFlightRecord {
    KeptKey kept;
    OwnerToken token;  // for whoever reads the log: nobody owns a key after a restart
};
struct DoneRecord {
    KeptKey kept;
    std::uint16_t status = 0;
    std::shared_ptr<const StoredResponse> response;  // null: not to be given again
};
struct UnknownRecord {
    KeptKey kept;
    UnknownWhy why{};
};
struct ReleasedRecord {
    Digest key;
    Generation generation;
};
struct ForgottenRecord {
    Digest key;
};
using Record = std::variant<InFlightRecord, DoneRecord, UnknownRecord, ReleasedRecord, ForgottenRecord>;

const Digest& key_of(const Record& record);

// Appends to `out`. Headers and body are below 4 GiB each.
void append_record(std::string& out, const Record& record);
// An error says what does not fit; no input reads or allocates beyond its own size.
Result<Record> decode_record(std::string_view bytes);

// One moment on both time lines.
struct ClockAnchor {
    Instant instant{};
    WallTime wall;
};

// The record of a state that is not absent.
Record record_of(const Digest& key, const KeyState& state, const ClockAnchor& anchor);
// The state after a restart at `now`: in flight becomes unknown, since nobody is left who knows the outcome. Absent if
// the record voids its key or the window is over.
KeyState state_after_restart(const Record& record, const ClockAnchor& anchor, Instant now);

}  // namespace outrider::policy
