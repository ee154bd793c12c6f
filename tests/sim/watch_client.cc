#include "tests/sim/watch_client.h"

#include <algorithm>

#include "control/store/bugs.h"
#include "tests/sim/history.h"
#include "tests/sim/key_space.h"
#include "tests/sim/kv_client.h"

namespace outrider::sim {
using namespace std::chrono_literals;
using Kind = store::WatchBatch::Kind;

void WatchClient::begin(std::uint32_t id) {
    id_ = id;
    Random& random = space_.random();
    switch (random.below(4)) {
        case 0:
            request_.range = {KvClient::key(random.below(KvClient::kKeys)), {}};
            break;
        case 1:
            request_.range = {std::string(1, '\0'), std::string(1, '\0')};
            break;
        case 2:
            request_.range = {KvClient::key(random.below(3)), KvClient::key(3 + random.below(3))};
            break;
        default:
            request_.range = KvClient::prefix();
    }
    request_.prev_kv = space_.one_in(2);
    request_.progress_notify = space_.one_in(2);
    request_.fragment = space_.one_in(2);
    request_.no_put = space_.one_in(8);
    request_.no_delete = !request_.no_put && space_.one_in(8);
    space_.wake_at(id_, space_.now() + space_.cluster().between(0s, 1s), kOpen);
    space_.wake_at(id_, space_.now() + space_.cluster().between(0s, space_.profile().watch_break), kBreak);
    space_.wake_at(id_, space_.now() + space_.cluster().between(0s, 1s), kAskProgress);
}

void WatchClient::turn(std::uint64_t what) {
    switch (what % 8) {
        case kOpen:
            if (node_ == 0 && !space_.calling(id_)) open();
            return;
        case kBreak:
            // Once all is well a connection is kept, unless nothing comes through it: its node may have been removed.
            if (node_ != 0 && (space_.harming() || !idle())) {
                disconnect();
                open_soon();
            }
            space_.wake_at(
                id_,
                space_.now() +
                    (space_.harming() ? space_.cluster().between(1ms, space_.profile().watch_break) : 300ms),
                kBreak);
            return;
        case kAskProgress:
            if (node_ != 0 && space_.cluster().answers(node_)) space_.ask_progress(node_, stream_);
            space_.wake_at(id_, space_.now() + space_.cluster().between(1ms, 1s), kAskProgress);
            return;
        default:
            if (what / 8 != resumes_ || !slow_) return;
            slow_ = false;
            if (node_ != 0 && space_.cluster().up(node_)) space_.resume_stream(node_, stream_);
    }
}

// What it lacks is gone: it reads everything, and watches from there.
void WatchClient::read_anew() {
    floor_ = space_.chronicle().known();
    Request request;
    request.kind = Request::Kind::kRead;
    request.range.range = request_.range;
    space_.call(id_, std::move(request));
}

void WatchClient::open() {
    if (gone_) return read_anew();
    const std::uint32_t node = space_.cluster().some_node();
    if (!space_.cluster().answers(node)) return open_soon();
    const store::Revision now = space_.machine_of(node).store().revision();
    store::WatchRequest request = request_;
    if (!started_) {
        started_ = true;
        // From now on, from a revision that was, or from one to come.
        constexpr std::int64_t kAhead = 5;
        const auto most = static_cast<std::uint64_t>(now.value + kAhead);
        next_ = space_.one_in(3)
                    ? now + 1
                    : store::Revision{1 + static_cast<std::int64_t>(space_.random().below(most))};
        if (next_ != now + 1 || space_.one_in(2)) request.start = next_;
    } else {
        request.start = next_;
        if (store::bug(store::Bug::kResumesAtRevision) && next_.value > 1) request.start = next_ + -1;
    }
    start_ = next_;
    skip_to(next_);
    const auto id = space_.open_stream(node, *this, std::move(request));
    if (!id) return open_soon();
    node_ = node;
    stream_ = *id;
    slow_ = false;
    if (space_.cluster().tracing()) {
        space_.cluster().note(node,
                              "watcher " + std::to_string(id_) + " from " + std::to_string(next_.value));
    }
}

void WatchClient::open_soon() {
    space_.wake_at(id_, space_.now() + space_.cluster().between(0ms, 100ms), kOpen);
}

void WatchClient::disconnect() {
    if (space_.cluster().up(node_)) space_.close_stream(node_, stream_);
    node_ = 0;
    slow_ = false;
    // What came of a revision in fragments is thrown away with the connection.
    skip_to(next_);
}

void WatchClient::crashed(std::uint32_t node) {
    if (node_ != node) return;
    node_ = 0;
    slow_ = false;
    skip_to(next_);
    open_soon();
}

void WatchClient::healed() {
    if (!slow_) return;
    slow_ = false;
    if (node_ != 0 && space_.cluster().up(node_)) space_.resume_stream(node_, stream_);
}

bool WatchClient::idle() const {
    return started_ && !gone_ && next_wanted(place_) == space_.chronicle().changes().size();
}

void WatchClient::skip_to(store::Revision next) {
    const auto& changes = space_.chronicle().changes();
    const auto it = std::lower_bound(
        changes.begin(), changes.end(), next,
        [](const Chronicle::Change& change, store::Revision r) { return change.kv.mod_revision < r; });
    place_ = static_cast<std::size_t>(it - changes.begin());
}

bool WatchClient::wants(const store::KeyValue& kv) const {
    const bool filtered = kv.version == 0 ? request_.no_delete : request_.no_put;
    return !filtered && kv.mod_revision >= start_ && request_.range.contains(kv.key);
}

std::size_t WatchClient::next_wanted(std::size_t place) const {
    const auto& changes = space_.chronicle().changes();
    while (place < changes.size() && !wants(changes[place].kv))
        ++place;
    return place;
}

void WatchClient::receive(const store::WatchBatch& batch, const store::Store& store) {
    Cluster& cluster = space_.cluster();
    if (space_.harming() && space_.profile().answer_loss > 0 &&
        space_.random().unit() < space_.profile().answer_loss) {
        // The connection broke with the batch in it.
        if (batch.kind != Kind::kCancelled) space_.close_stream(node_, stream_);
        node_ = 0;
        skip_to(next_);
        open_soon();
        return;
    }
    if (batch.kind == Kind::kCancelled) {
        node_ = 0;
        if (next_ >= batch.compacted) broken("is cancelled though nothing that it lacks is gone");
        skip_to(next_);
        if (cluster.tracing()) cluster.note(node_, "watcher " + std::to_string(id_) + " is cancelled");
        gone_ = true;
        open_soon();
        return;
    }
    take(batch, store);
    if (space_.harming() && space_.random().unit() < space_.profile().watch_slow) {
        slow_ = true;
        space_.wake_at(id_, space_.now() + cluster.between(1ms, 500ms), kResume + ++resumes_ * 8);
    }
}

void WatchClient::take(const store::WatchBatch& batch, const store::Store& store) {
    if (batch.kind == Kind::kProgress) {
        const std::size_t next = next_wanted(place_);
        const auto& changes = space_.chronicle().changes();
        if (next < changes.size() && changes[next].kv.mod_revision <= batch.revision)
            broken("is told that all up to " + std::to_string(batch.revision.value) +
                   " was delivered, but it lacks " + std::to_string(changes[next].kv.mod_revision.value));
        next_ = std::max(next_, batch.revision + 1);
        skip_to(next_);
        return;
    }
    for (const store::WatchBatch::Event& event : batch.events) {
        check_event(event, store);
    }
    const store::Revision last = batch.events.back().record->mod();
    space_.chronicle().learn(last);
    next_ = std::max(next_, batch.fragment ? last : last + 1);
    const std::size_t rest = next_wanted(place_);
    const auto& changes = space_.chronicle().changes();
    if (!batch.fragment && rest < changes.size() && changes[rest].kv.mod_revision <= last)
        broken("does not get all of revision " + std::to_string(last.value));
}

void WatchClient::check_event(const store::WatchBatch::Event& event, const store::Store& store) {
    const Chronicle& chronicle = space_.chronicle();
    const store::KeyValue got = event.record->key_value();
    const std::size_t expected = next_wanted(place_);
    const auto shown = [](const store::KeyValue& kv) {
        return kv.key + "@" + std::to_string(kv.mod_revision.value);
    };
    if (expected == chronicle.changes().size()) {
        broken("gets " + shown(got) + ", and there is nothing more to get");
        return;
    }
    const store::KeyValue& wanted = chronicle.changes()[expected].kv;
    if (got != wanted) broken("gets " + shown(got) + " instead of " + shown(wanted));
    place_ = expected + 1;
    if (!request_.prev_kv) return;
    const store::KeyValue* before = chronicle.at(got.key, got.mod_revision + -1);
    const bool gone = store.compacted() >= got.mod_revision;
    if (event.prev != nullptr ? before == nullptr || *before != event.prev->key_value()
                              : before != nullptr && !gone)
        broken("gets " + shown(got) + " with another version before it");
}

void WatchClient::answered(const Request& request, const Answer& answer) {
    check_read(space_, request, answer, floor_);
    if (answer.revision + 1 < next_) broken("reads anew and goes back");
    next_ = answer.revision + 1;
    gone_ = false;
    skip_to(next_);
    open_soon();
}

void WatchClient::broken(const std::string& what) {
    space_.chronicle().broken("watcher " + std::to_string(id_) + " " + what);
}

}  // namespace outrider::sim
