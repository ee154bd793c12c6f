#include "control/agent/watch_cursor.h"

#include <algorithm>
#include <utility>

namespace outrider::agent {
namespace {

constexpr std::size_t kEntryBytes = 96;  // of a node of the map, beside the key

std::size_t bytes_of(const v3::KeyValue& kv) {
    return kv.key().size() + kv.value().size() + sizeof(v3::KeyValue);
}

v3::Event put_event(v3::KeyValue kv) {
    v3::Event event;
    event.mutable_kv()->Swap(&kv);
    return event;
}

v3::Event delete_event(const std::string& key, store::Revision revision) {
    v3::Event event;
    event.set_type(v3::Event::DELETE);
    event.mutable_kv()->set_key(key);
    event.mutable_kv()->set_mod_revision(revision.value);
    return event;
}

Error too_large(std::size_t bytes_max) {
    return {"the watched range is larger than " + std::to_string(bytes_max) + " bytes"};
}

}  // namespace

WatchCursor::WatchCursor(Options options) : options_(std::move(options)) {
    switch (options_.first) {
        case First::kState:
            begin_read(WatchUpdate::Why::kFirst);
            break;
        case First::kNow:
            want_ = Want::kCheck;
            break;
        case First::kRevision:
            want_ = Want::kWatch;
            next_ = options_.revision;
            break;
    }
}

void WatchCursor::begin_read(WatchUpdate::Why why) {
    want_ = Want::kRead;
    why_ = why;
    on_read_compacted();
}

void WatchCursor::on_read_compacted() {
    read_revision_ = {};
    read_from_ = options_.range.key;
    read_.clear();
    read_bytes_ = 0;
}

v3::RangeRequest WatchCursor::read_request() const {
    v3::RangeRequest request;
    if (want_ == Want::kCheck) {
        request.set_key(options_.range.key);
        request.set_count_only(true);
        return request;
    }
    request.set_key(read_from_);
    request.set_range_end(options_.range.end);
    if (!options_.range.single()) request.set_limit(options_.page_keys);
    request.set_revision(read_revision_.value);
    return request;
}

v3::WatchRequest WatchCursor::watch_request() const {
    v3::WatchRequest request;
    v3::WatchCreateRequest& create = *request.mutable_create_request();
    create.set_key(options_.range.key);
    create.set_range_end(options_.range.end);
    create.set_start_revision(next_.value);
    create.set_prev_kv(options_.prev_kv);
    create.set_progress_notify(options_.progress_notify);
    create.set_fragment(true);
    return request;
}

// ---- reading ----------------------------------------------------------------------------------------------------------

Result<void> WatchCursor::on_read(const v3::RangeResponse& response, const Deliver& deliver) {
    if (response.header().revision() < 1) return Error{"an answer without a revision"};
    if (want_ == Want::kCheck) return on_check(response);
    if (want_ != Want::kRead) return Error{"a read that was not asked for"};
    if (auto collected = collect(response); !collected) return collected;
    if (response.more()) return {};
    deliver(finish_read());
    return {};
}

Result<void> WatchCursor::on_check(const v3::RangeResponse& response) {
    const store::Revision newest{response.header().revision()};
    const bool same = cluster_id_ == 0 || cluster_id_ == response.header().cluster_id();
    if (!began_) {
        if (options_.first == First::kNow) next_ = newest + 1;
        began_ = true;
        cluster_id_ = response.header().cluster_id();
    } else if (!same || newest + 1 < next_) {
        begin_read(WatchUpdate::Why::kHistoryLost);
        return {};
    }
    want_ = Want::kWatch;
    return {};
}

// One page; all pages are of one revision.
Result<void> WatchCursor::collect(const v3::RangeResponse& response) {
    if (read_revision_.value != 0 && read_cluster_id_ != response.header().cluster_id()) {
        on_read_compacted();
        return Error{"the endpoint belongs to another cluster"};
    }
    std::string_view last = read_.empty() ? std::string_view() : std::string_view(read_.back().key());
    for (const v3::KeyValue& kv : response.kvs()) {
        if (!options_.range.contains(kv.key()) || (!read_.empty() && kv.key() <= last))
            return Error{"a range's keys are not in it, or not in order"};
        read_bytes_ += bytes_of(kv);
        if (read_bytes_ > options_.state_bytes_max) return too_large(options_.state_bytes_max);
        read_.push_back(kv);
        last = read_.back().key();
    }
    if (response.more() && response.kvs().empty()) return Error{"a range has more, and gives nothing"};
    if (read_revision_.value == 0) {
        read_revision_ = {response.header().revision()};
        read_cluster_id_ = response.header().cluster_id();
    }
    if (response.more()) read_from_ = read_.back().key() + '\0';
    return {};
}

WatchUpdate WatchCursor::finish_read() {
    WatchUpdate update;
    update.kind = WatchUpdate::Kind::kResync;
    update.revision = read_revision_;
    const bool lost = began_ && (read_revision_ + 1 < next_ || read_cluster_id_ != cluster_id_);
    update.why = lost ? WatchUpdate::Why::kHistoryLost : why_;
    const bool whole = update.why == WatchUpdate::Why::kHistoryLost || !options_.track_keys;

    Known now;
    std::size_t now_bytes = 0;
    std::vector<v3::Event> puts;
    for (v3::KeyValue& kv : read_) {
        const auto before = known_.find(kv.key());
        const bool same = before != known_.end() && before->second == kv.mod_revision();
        if (options_.track_keys) {
            now.emplace_hint(now.end(), kv.key(), kv.mod_revision());
            now_bytes += kv.key().size() + kEntryBytes;
        }
        if (whole || !same) puts.push_back(put_event(std::move(kv)));
    }
    for (const auto& [key, revision] : known_) {
        if (!now.contains(key)) update.events.push_back(delete_event(key, read_revision_));
    }
    std::stable_sort(puts.begin(), puts.end(), [](const v3::Event& a, const v3::Event& b) {
        return a.kv().mod_revision() < b.kv().mod_revision();
    });
    std::move(puts.begin(), puts.end(), std::back_inserter(update.events));

    known_ = std::move(now);
    known_bytes_ = now_bytes;
    next_ = read_revision_ + 1;
    began_ = true;
    cluster_id_ = read_cluster_id_;
    on_read_compacted();  // frees what was collected
    std::vector<v3::KeyValue>().swap(read_);
    want_ = Want::kWatch;
    return update;
}

// ---- watching ---------------------------------------------------------------------------------------------------------

Result<void> WatchCursor::on_message(const v3::WatchResponse& message, const Deliver& deliver) {
    if (want_ != Want::kWatch) return Error{"a message of a watch that was not asked for"};
    const std::uint64_t cluster = message.header().cluster_id();
    if (cluster_id_ == 0) cluster_id_ = cluster;
    if (cluster != cluster_id_) return Error{"the endpoint belongs to another cluster now"};
    if (message.compact_revision() != 0) {
        pending_.clear();
        pending_bytes_ = 0;
        begin_read(WatchUpdate::Why::kCompacted);
        return {};
    }
    if (message.canceled()) {
        return Error{message.cancel_reason().empty() ? "the server ended the watch"
                                                     : message.cancel_reason()};
    }
    if (message.created()) {
        // Asked for from now on, with a server that knows what that is.
        if (next_.value <= 0) {
            next_ = {message.header().revision() + 1};
            began_ = true;
        }
        return {};
    }
    if (message.events().empty() && pending_.empty()) {
        deliver({.kind = WatchUpdate::Kind::kProgress,
                 .why = WatchUpdate::Why::kNone,
                 .revision = std::max(store::Revision{message.header().revision()}, seen()),
                 .events = {}});
        return {};
    }
    return take_events(message, deliver);
}

Result<void> WatchCursor::check_event(const v3::Event& event) const {
    const std::int64_t last = pending_.empty() ? 0 : pending_.back().kv().mod_revision();
    if (!options_.range.contains(event.kv().key())) return Error{"an event of a key that is not watched"};
    if (event.kv().mod_revision() < 1 || event.kv().mod_revision() < last)
        return Error{"events are not in order"};
    return {};
}

Result<void> WatchCursor::take_events(const v3::WatchResponse& message, const Deliver& deliver) {
    for (const v3::Event& event : message.events()) {
        if (auto checked = check_event(event); !checked) return checked;
        if (event.kv().mod_revision() < next_.value) continue;  // delivered before (etcd has sent such)
        pending_bytes_ += bytes_of(event.kv()) + bytes_of(event.prev_kv());
        if (pending_bytes_ + known_bytes_ > options_.state_bytes_max)
            return too_large(options_.state_bytes_max);
        pending_.push_back(event);
    }
    std::size_t complete = pending_.size();
    if (message.fragment() && complete != 0) {
        const std::int64_t open = pending_.back().kv().mod_revision();
        while (complete != 0 && pending_[complete - 1].kv().mod_revision() == open)
            --complete;
    }
    if (complete != 0) deliver_up_to(complete, deliver);
    return {};
}

void WatchCursor::deliver_up_to(std::size_t count, const Deliver& deliver) {
    WatchUpdate update;
    const auto end = pending_.begin() + static_cast<std::ptrdiff_t>(count);
    update.events.assign(std::make_move_iterator(pending_.begin()), std::make_move_iterator(end));
    pending_.erase(pending_.begin(), end);
    pending_bytes_ = 0;
    for (const v3::Event& event : pending_)
        pending_bytes_ += bytes_of(event.kv()) + bytes_of(event.prev_kv());
    if (options_.track_keys) {
        for (const v3::Event& event : update.events)
            remember(event);
    }
    update.revision = {update.events.back().kv().mod_revision()};
    next_ = update.revision + 1;
    began_ = true;
    deliver(std::move(update));
}

void WatchCursor::remember(const v3::Event& event) {
    const std::string& key = event.kv().key();
    if (event.type() == v3::Event::DELETE) {
        if (known_.erase(key) != 0) known_bytes_ -= key.size() + kEntryBytes;
    } else if (known_.insert_or_assign(key, event.kv().mod_revision()).second) {
        known_bytes_ += key.size() + kEntryBytes;
    }
}

void WatchCursor::on_disconnected() {
    pending_.clear();
    pending_bytes_ = 0;
    if (want_ != Want::kWatch) return;
    // Before anything was seen there is nothing to compare with.
    if (began_) {
        want_ = Want::kCheck;
    } else {
        cluster_id_ = 0;
    }
}

}  // namespace outrider::agent
