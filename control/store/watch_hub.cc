#include "control/store/watch_hub.h"

#include <algorithm>

#include "base/check.h"
#include "control/store/bugs.h"

namespace outrider::store {

std::optional<WatchId> WatchHub::add(const Store& store, WatchRequest request) {
    require(!request.empty(), "a watched range can hold a key");
    if (watchers_.size() >= options_.watchers_max) return std::nullopt;
    const WatchId id{++last_id_};
    if (request.range.single())
        by_key_[request.range.key].insert(id);
    else
        by_range_[{request.range.key, request.range.end}].insert(id);

    Watcher& watcher = watchers_[id.value];
    const Revision now = store.revision();
    watcher.next = request.start.value == 0 ? now + 1 : std::max(request.start, Revision{0});
    watcher.synced = watcher.next > now;
    watcher.request = std::move(request);
    if (!watcher.synced) wake(id, watcher);
    return id;
}

void WatchHub::remove(WatchId id) {
    const auto it = watchers_.find(id.value);
    if (it == watchers_.end()) return;
    const KeyRange& range = it->second.request.range;
    if (range.single()) {
        const auto group = by_key_.find(range.key);
        group->second.erase(id);
        if (group->second.empty()) by_key_.erase(group);
    } else {
        const auto group = by_range_.find({range.key, range.end});
        group->second.erase(id);
        if (group->second.empty()) by_range_.erase(group);
    }
    watchers_.erase(it);  // next_ready() passes over ids that are gone
}

void WatchHub::wake(WatchId id, Watcher& watcher) {
    if (watcher.ready) return;
    watcher.ready = true;
    ready_.push_back(id);
}

void WatchHub::wake(WatchId id) {
    if (const auto it = watchers_.find(id.value); it != watchers_.end()) wake(id, it->second);
}

bool WatchHub::wants(const Watcher& watcher, const Record& record) {
    return record.tombstone() ? !watcher.request.no_delete : !watcher.request.no_put;
}

void WatchHub::notice(const Record& record, const Ids& ids) {
    for (const WatchId id : ids) {
        Watcher& watcher = watchers_.at(id.value);
        // One that is behind finds the change when it gets there.
        if (!watcher.synced || !wants(watcher, record)) continue;
        if (record.mod() < watcher.next && !bug(Bug::kFutureWatchStartsNow)) continue;
        watcher.synced = false;
        watcher.next = record.mod();
        watcher.next_sub = record.fields().sub;
        wake(id, watcher);
    }
}

void WatchHub::applied(std::span<const Record* const> events) {
    for (const Record* record : events) {
        key_.assign(record->fields().key);
        if (const auto group = by_key_.find(key_); group != by_key_.end()) notice(*record, group->second);
        for (const auto& [range, ids] : by_range_) {
            if (key_ < range.first) break;  // they are in the order of their beginnings
            const bool unbounded = range.second.size() == 1 && range.second[0] == '\0';
            if (unbounded || key_ < range.second) notice(*record, ids);
        }
    }
}

void WatchHub::restored(Revision before, const Store& store) {
    if (bug(Bug::kRestoreUnnoticed)) return;
    for (auto& [id, watcher] : watchers_) {
        // The place of one that is synced is kept only when it began in the future.
        const Revision next = bug(Bug::kWatchRepeatsRevision) ? before : before + 1;
        if (watcher.synced) watcher.next = std::max(watcher.next, next);
        watcher.synced = watcher.next > store.revision();
        if (!watcher.synced) wake({id}, watcher);
    }
}

std::optional<WatchId> WatchHub::next_ready() {
    while (!ready_.empty()) {
        const WatchId id = ready_.front();
        ready_.pop_front();
        const auto it = watchers_.find(id.value);
        if (it == watchers_.end()) continue;
        it->second.ready = false;
        return id;
    }
    return std::nullopt;
}

WatchBatch WatchHub::poll(const Store& store, WatchId id) {
    WatchBatch batch;
    batch.revision = store.revision();
    const auto it = watchers_.find(id.value);
    if (it == watchers_.end()) return batch;
    Watcher& watcher = it->second;
    if (!watcher.synced && watcher.next < store.compacted() && !bug(Bug::kWatchJumpsCompaction)) {
        batch.kind = WatchBatch::Kind::kCancelled;
        batch.compacted = store.compacted();
        remove(id);
        return batch;
    }
    if (!watcher.synced) batch = read_history(store, id, watcher);
    if (batch.kind == WatchBatch::Kind::kEvents) watcher.quiet = false;
    if (watcher.progress && (watcher.synced || bug(Bug::kProgressWhileBehind))) {
        if (batch.kind == WatchBatch::Kind::kNothing) {
            batch.kind = WatchBatch::Kind::kProgress;
            watcher.progress = false;
        } else {
            wake(id, watcher);
        }
    }
    return batch;
}

WatchBatch WatchHub::read_history(const Store& store, WatchId id, Watcher& watcher) {
    WatchBatch batch;
    batch.revision = store.revision();
    const std::size_t size = store.history().size();
    std::size_t i = store.history_position(watcher.next);
    if (i > 0) store.change(i - 1);  // or it may have misled the search
    while (i < size && store.change(i).mod() == watcher.next &&
           store.change(i).record()->fields().sub < watcher.next_sub && !bug(Bug::kWatchForgetsFragment))
        ++i;

    std::size_t bytes = 0;
    std::size_t scanned = 0;
    Revision last;  // of the last event taken
    for (; i < size; ++i) {
        const Record* record = store.change(i).record();
        const Record::Fields f = record->fields();
        const bool wanted = watcher.request.range.contains(f.key) && wants(watcher, *record);
        const bool same_revision = !batch.events.empty() && record->mod() == last;
        // Within a revision only before a change that will follow in another fragment.
        const bool may_stop = !same_revision || (watcher.request.fragment && wanted);
        if (may_stop && (bytes >= options_.batch_bytes || scanned >= options_.scan_max)) break;
        ++scanned;
        if (!wanted) continue;
        const Record* prev = watcher.request.prev_kv ? record->prev() : nullptr;
        if (prev != nullptr && prev->tombstone()) prev = nullptr;
        batch.events.push_back({record, prev});
        bytes += f.key.size() + f.value.size() + (prev != nullptr ? prev->fields().value.size() : 0);
        last = record->mod();
    }
    if (!batch.events.empty()) batch.kind = WatchBatch::Kind::kEvents;
    if (i == size) {
        watcher.synced = true;
        watcher.next = store.revision() + (bug(Bug::kWatchRepeatsRevision) ? 0 : 1);
        watcher.next_sub = 0;
    } else {
        const Change& change = store.change(i);
        watcher.next = change.mod();
        watcher.next_sub = change.record()->fields().sub;
        batch.fragment = !batch.events.empty() && watcher.next == last;
        wake(id, watcher);
    }
    return batch;
}

void WatchHub::progress_round() {
    for (auto& [id, watcher] : watchers_) {
        if (watcher.request.progress_notify && watcher.synced && watcher.quiet) {
            watcher.progress = true;
            wake({id}, watcher);
        }
        watcher.quiet = true;
    }
}

void WatchHub::request_progress(WatchId id) {
    const auto it = watchers_.find(id.value);
    if (it == watchers_.end()) return;
    it->second.progress = true;
    wake(id, it->second);
}

}  // namespace outrider::store
