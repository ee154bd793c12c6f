// A client of the simulated key space: one request at a time, which is asked again, of any node, until it is answered.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/time.h"
#include "control/store/types.h"

namespace outrider::sim {

struct Request {
    enum class Kind : std::uint8_t {
        kWrite,      // through the log, in the caller's session
        kRead,       // linearizable
        kStaleRead,  // serializable
        kKeepAlive,
    };
    Kind kind = Kind::kWrite;
    store::Command command;     // kWrite
    store::RangeRequest range;  // kRead, kStaleRead
    store::LeaseId lease;       // kKeepAlive
};

struct Answer {
    store::Status status = store::Status::kOk;
    store::Revision revision;         // of the header
    store::Response response;         // kWrite
    store::RangeResponse range;       // kRead, kStaleRead
    std::optional<std::int64_t> ttl;  // kKeepAlive; nothing: the lease is gone
    // When it was asked; true time. Of a write: for the first time, since it may have taken effect then.
    Instant asked;
};

class Caller {
  public:
    virtual ~Caller() = default;
    virtual void begin(std::uint32_t id) = 0;
    // A time that it has set with KeySpace::wake_at.
    virtual void turn(std::uint64_t what) = 0;
    virtual void answered(const Request& request, const Answer& answer) = 0;
    virtual void crashed(std::uint32_t) {}  // a node
    // The one node that it asks; 0: any.
    virtual std::uint32_t home() const { return 0; }
    virtual void healed() {}
    // Nothing of its own is open, apart from a request under way.
    virtual bool idle() const { return true; }
};

}  // namespace outrider::sim
