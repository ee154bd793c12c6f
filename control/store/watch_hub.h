// Who watches what, and how far each has come. Pure: the shell tells it what was applied and takes batches out.
//
// There are no queues. All changes since the last compaction lie in the store's history in order, so a watcher is a place
// in it: `synced`, when nothing that it wants lies before the end (a change costs such a watcher nothing unless
// it matches), or behind, when it reads history from its place on. A client that does not read costs 100 bytes and no
// more; a watcher that begins in the past, one that was slow and one that a change has just woken are the same thing. If
// compaction overtakes a place, the watcher is cancelled with the compaction's revision, as in etcd: the client
// reads the range anew and watches from there. A shell that empties the hub before it applies a compaction
// cancels only those that are really slow.
//
// Invariants
//   * A watcher gets every change of its range from its first revision on that its filters let pass, once, in order.
//   * Changes of one revision are in one batch, unless the watcher asked for fragments.
//   * next_ready() names a watcher exactly when poll() has something for it, or must look further to know.
//
// Cost of a change: a look-up for watchers of that one key, and one comparison for each distinct range that is watched.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "control/store/store.h"

namespace outrider::store {

struct WatchId {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(const WatchId&, const WatchId&) = default;
};

struct WatchRequest {
    KeyRange range;
    Revision start;  // 0: what comes from now on; less: from the very first revision
    bool prev_kv = false;
    bool progress_notify = false;
    bool fragment = false;
    bool no_put = false;
    bool no_delete = false;

    // etcd refuses these: nothing can lie between.
    bool empty() const { return !range.single() && !range.unbounded() && range.end <= range.key; }
};

struct WatchBatch {
    enum class Kind : std::uint8_t {
        kNothing,  // the part of history that was looked at held nothing; the watcher may be ready again
        kEvents,
        kProgress,  // all up to `revision` has been delivered
        kCancelled  // and removed: history below `compacted` is gone
    };
    struct Event {
        const Record* record;
        const Record* prev;  // if asked for and still there
    };
    Kind kind = Kind::kNothing;
    Revision revision;  // of the answer's header
    Revision compacted;
    std::vector<Event> events;  // valid until the store's next apply()
    bool fragment = false;      // the revision of the last event goes on in the next batch
};

class WatchHub {
  public:
    struct Options {
        std::size_t watchers_max = 100'000;
        // A batch ends when its keys and values come to this.
        std::size_t batch_bytes = std::size_t{512} << 10;
        // Of history that one poll() looks at, so that one that is far behind does not hold up the others.
        std::size_t scan_max = 10'000;
    };

    WatchHub() : WatchHub(Options()) {}
    explicit WatchHub(Options options) : options_(options) {}

    // Nothing when there are too many. The range must not be empty().
    std::optional<WatchId> add(const Store& store, WatchRequest request);
    void remove(WatchId id);
    std::size_t size() const { return watchers_.size(); }

    // After every apply(), with its events.
    void applied(std::span<const Record* const> events);
    // A snapshot has taken the place of a store that was at `before`: what lies between them never went through applied(),
    // and everybody reads it in the new one's history. Whom its compaction has overtaken is cancelled as ever.
    void restored(Revision before, const Store& store);
    // Takes the one that has waited longest off the list of those that are ready. The shell polls it, or, when its client
    // cannot take more now, calls wake() later.
    std::optional<WatchId> next_ready();
    void wake(WatchId id);
    // Puts the watcher on the list again by itself if there is more.
    WatchBatch poll(const Store& store, WatchId id);

    // Once per interval: a synced watcher that asked for it and got nothing since the last round gets its progress.
    void progress_round();
    // For one, as a client's progress_request wants: as soon as it is synced.
    void request_progress(WatchId id);

  private:
    struct Watcher {
        WatchRequest request;
        Revision next;               // what it has not got yet begins here …
        std::uint32_t next_sub = 0;  // … with this number
        bool synced = false;
        bool ready = false;     // on the list
        bool progress = false;  // owed
        bool quiet = true;      // got nothing since the last round
    };
    using Range = std::pair<std::string, std::string>;
    // In the order in which they were added; each is taken off without a look at the others, however many watch the same.
    using Ids = std::set<WatchId>;

    void wake(WatchId id, Watcher& watcher);
    void notice(const Record& record, const Ids& ids);
    static bool wants(const Watcher& watcher, const Record& record);
    WatchBatch read_history(const Store& store, WatchId id, Watcher& watcher);

    const Options options_;
    std::unordered_map<std::uint64_t, Watcher> watchers_;
    std::unordered_map<std::string, Ids> by_key_;
    std::map<Range, Ids> by_range_;
    std::deque<WatchId> ready_;
    std::uint64_t last_id_ = 0;
    std::string key_;
};

}  // namespace outrider::store
