// Where a watch of a range stands: what to ask for next, and what an answer means to whoever watches. Pure.
//
// The watch begins with the state of the range, or at a revision. Events come in order; after a disconnect it goes on
// behind the last revision of which everything has come. When that has been compacted meanwhile, the range is read anew, and
// what differs from what was delivered so far comes as one update (kResync): its events lead from the old state to the new
// one, though what lay between is lost, as it is for everybody.
//
// Whole revisions. Events of one revision are delivered together; the server may send them in fragments, of which the last
// revision is kept back until it is complete. So "behind the last revision" is exact.
//
// Progress notices are passed on, but the place does not move by them: servers have sent them too early (etcd issue 15220). The price
// is a new read when an idle range is compacted, with no difference found.
//
// History that is gone. Before a watch is resumed, a linearizable read says how far the cluster is. When that is behind what
// was seen, or it is another cluster, history was lost (restored from a backup, a new cluster at the same address): the
// range is read anew and delivered whole (kHistoryLost). A cluster of the same id that has made up for what it lost by
// then cannot be told from one that lost nothing: restore a backup as a new cluster.
//
// Invariants (tests/agent/watch_cursor_test.cc)
//   * applied in their order, the events of all updates make the state of the range at the last update's revision
//   * between two resyncs, each change of the range comes exactly once, in the order of the history
//   * revisions of events and resyncs never go back, except with kHistoryLost
//   * what is kept is bounded by Options::state_bytes_max, also while a range is read and a revision is incomplete
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "control/proto/rpc.pb.h"
#include "control/store/types.h"

namespace outrider::agent {

namespace v3 = outrider::control::v3;

struct WatchUpdate {
    enum class Kind : std::uint8_t {
        kEvents,
        kResync,    // `events` lead from all that was delivered before to the state at `revision`
        kProgress,  // nothing new up to `revision`
    };
    enum class Why : std::uint8_t {
        kNone,
        kFirst,      // the state with which the watch begins
        kCompacted,  // what was to come next is no longer kept
        kHistoryLost,  // the cluster does not have what was seen: `events` is the whole state, on top of what was deleted
    };
    Kind kind = Kind::kEvents;
    Why why = Why::kNone;
    store::Revision revision;
    // A resync's deletions come first and carry its revision; its puts are in the order of their mod_revision.
    std::vector<v3::Event> events;
};

class WatchCursor {
  public:
    enum class First : std::uint8_t {
        kState,     // begin with the state of the range
        kNow,       // begin behind the newest revision
        kRevision,  // begin at `revision`
    };
    struct Options {
        store::KeyRange range;
        First first = First::kState;
        store::Revision revision;
        bool prev_kv = false;
        bool progress_notify = false;
        // Without it memory is spared, and a resync delivers every key as put and no deletions.
        bool track_keys = true;
        std::int64_t page_keys = 1'000;  // of a read
        std::size_t state_bytes_max = std::size_t{256} << 20;
    };
    // What is to be asked now; one thing at a time.
    enum class Want : std::uint8_t {
        kRead,   // read_request(): a page of the state
        kCheck,  // read_request(): how far the cluster is
        kWatch,  // watch_request() on a stream, then on_message()
    };

    explicit WatchCursor(Options options);

    Want want() const { return want_; }
    v3::RangeRequest read_request() const;
    v3::WatchRequest watch_request() const;

    // Each of these may deliver updates through `deliver`. An error: the answer is none to what was asked (the endpoint is to be
    // left), or a bound was reached; the place is kept.
    using Deliver = std::function<void(WatchUpdate)>;
    Result<void> on_read(const v3::RangeResponse& response, const Deliver& deliver);
    // The read was refused because its revision is compacted: begins the read anew.
    void on_read_compacted();
    Result<void> on_message(const v3::WatchResponse& message, const Deliver& deliver);
    // The stream has ended, or is given up.
    void on_disconnected();

    // Everything up to here has been delivered; 0: nothing yet.
    store::Revision seen() const { return {next_.value - 1}; }

  private:
    using Known = std::map<std::string, std::int64_t, std::less<>>;

    void begin_read(WatchUpdate::Why why);
    void begin_check();
    Result<void> on_check(const v3::RangeResponse& response);
    Result<void> collect(const v3::RangeResponse& response);
    WatchUpdate finish_read();
    Result<void> take_events(const v3::WatchResponse& message, const Deliver& deliver);
    void deliver_up_to(std::size_t count, const Deliver& deliver);
    Result<void> check_event(const v3::Event& event) const;
    void remember(const v3::Event& event);

    const Options options_;
    Want want_ = Want::kRead;
    WatchUpdate::Why why_ = WatchUpdate::Why::kFirst;
    store::Revision next_;  // the first that is not delivered; 0: not known yet
    bool began_ = false;    // next_ comes from what the cluster said, not only from who asks
    std::uint64_t cluster_id_ = 0;
    std::uint64_t read_cluster_id_ = 0;

    // A read under way.
    store::Revision read_revision_;  // 0: before the first page
    std::string read_from_;
    std::vector<v3::KeyValue> read_;
    std::size_t read_bytes_ = 0;

    std::vector<v3::Event> pending_;  // of fragments: not delivered
    std::size_t pending_bytes_ = 0;
    Known known_;
    std::size_t known_bytes_ = 0;
};

}  // namespace outrider::agent
