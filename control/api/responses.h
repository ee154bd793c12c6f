// From answers to JSON, in the shape of etcd's gateway: 64-bit integers as strings, bytes in base64, what is zero left out.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "control/api/errors.h"
#include "control/api/requests.h"
#include "control/store/store.h"
#include "control/store/watch_hub.h"

namespace outrider::api {

// Of every header, beside its revision.
struct Identity {
    std::uint64_t cluster_id = 0;
    std::uint64_t member_id = 0;
    std::uint64_t raft_term = 0;
};

struct Status {
    std::string version;
    std::int64_t db_size = 0;
    std::int64_t db_size_in_use = 0;
    std::uint64_t leader = 0;
    std::uint64_t raft_index = 0;
    std::uint64_t raft_term = 0;
    std::uint64_t raft_applied_index = 0;
    std::vector<std::string> errors;
    bool learner = false;
};

struct Member {
    std::uint64_t id = 0;
    std::string name;
    std::vector<std::string> peer_urls;
    std::vector<std::string> client_urls;
    bool learner = false;
};

// Makes the answers of one member; `identity` is what it is now.
class Responder {
  public:
    explicit Responder(const Identity& identity) : identity_(identity) {}

    // Of the command that `call` made; a status that is not kOk is refused.
    Answer command(Call call, const store::Response& response) const;
    Answer range(store::Revision revision, const store::Store::RangeResult& result) const;
    // ttl_seconds_left -1: unknown or expired; granted is 0 then.
    Answer time_to_live(store::Revision revision, store::LeaseId id, std::int64_t ttl_seconds_left,
                        std::int64_t granted_seconds, const std::vector<std::string>& keys) const;
    Answer leases(store::Revision revision, const store::LeaseTable& leases) const;
    Answer status(store::Revision revision, const Status& status) const;
    Answer hash(store::Revision revision, std::uint32_t hash) const;
    Answer empty() const { return {200, "application/json", "{}"}; }
    // List, and what add, remove, update and promote answer; `added` is set for add.
    Answer members(const std::vector<Member>& members, const Member* added = nullptr) const;

    // Messages of streams: {"result": …} and a line feed.
    std::string keep_alive(store::Revision revision, store::LeaseId id, std::int64_t ttl_seconds) const;
    std::string watch_created(store::Revision revision, std::int64_t watch_id) const;
    // Created and cancelled at once, with etcd's reasons below.
    std::string watch_refused(store::Revision revision, std::string_view reason) const;
    std::string watch_cancelled(store::Revision revision, std::int64_t watch_id) const;
    // Events, progress, or cancelled by a compaction; empty for a batch of nothing.
    std::string watch_batch(std::int64_t watch_id, const store::WatchBatch& batch) const;
    // The answer to a progress_request when all watches of the stream are synced.
    std::string watch_progress(store::Revision revision) const;
    std::string snapshot_piece(std::string_view bytes, std::uint64_t remaining_bytes) const;

  private:
    const Identity identity_;
};

inline constexpr std::string_view kWatchRangeEmpty = "mvcc: watcher range is empty";
inline constexpr std::string_view kWatchesTooMany = "too many watches on this stream: open another";
inline constexpr std::string_view kWatchIdDuplicate = "mvcc: duplicate watch ID provided on the WatchStream";

}  // namespace outrider::api
