// Watch and lease keepalive: messages in, lines out.
#include <algorithm>
#include <utility>

#include "control/node/api_backup.h"
#include "control/node/api_call.h"

namespace outrider::node {

void ApiCall::write_line(std::string_view text) {
    if (response_finished()) return;
    if (!response_started())
        start_response(200, http::reason_phrase(200), Body::kUnknown, 0, 64,
                       [](http::HeadWriter& out) { out.field("Content-Type", "application/json"); });
    write_body({&text, 1}, false);
}

// One message after the other; the next one waits while one is being worked on, and while the client does not read its answers.
// A refusal ends the call, and then this object may be gone.
void ApiCall::next_message() {
    if (taking_) return;  // it is running
    taking_ = true;
    const std::shared_ptr<bool> alive = alive_;
    while (stream_ && !waiting() && !response_blocked() && !response_finished()) {
        auto message = messages_.next();
        if (!message) {
            fail_stream({api::Code::kInvalidArgument, message.error()});
            break;
        }
        if (!*message) break;
        take_message(**message);
        if (!*alive) return;
    }
    if (!*alive) return;
    taking_ = false;
    if (!stream_ || response_finished()) return;
    server_.hold(std::exchange(held_bytes_, messages_.pending()),
                 messages_.pending());  // it only shrinks here
    const bool busy = waiting() || response_blocked();
    if (!input_ended_) busy ? pause_request() : resume_request();
    // A watch goes on when its client has said all it has to say.
    if (input_ended_ && !busy && call_ == api::Call::kLeaseKeepAlive) end_stream();
}

void ApiCall::take_message(std::string_view message) {
    auto parsed = api::parse_request(call_, message);
    if (const auto* answer = std::get_if<api::Answer>(&parsed)) {
        if (response_started()) {
            write_line(answer->body + "\n");
            end_stream();
        } else {
            send(*answer);
        }
        return;
    }
    api::Request& request = std::get<api::Request>(parsed);
    if (const auto* keep = std::get_if<api::LeaseKeepAlive>(&request)) {
        lease_ = keep->id;
        server_.node().ask_lease(*this, keep->id, true);
    } else if (const auto* create = std::get_if<api::WatchCreate>(&request)) {
        take_watch(*create);
    } else if (const auto* cancel = std::get_if<api::WatchCancel>(&request)) {
        cancel_watch(cancel->watch_id);
    } else if (std::holds_alternative<api::WatchProgress>(request)) {
        tell_progress();
    }
}

void ApiCall::fail_stream(const api::Problem& problem) {
    const api::Answer answer = api::refuse(problem);
    if (!response_started()) {
        send(answer);
        return;
    }
    write_line(answer.body + "\n");
    end_stream();
}

void ApiCall::end_stream() {
    drop_watches();
    const bool cut = std::exchange(backup_, nullptr) != nullptr;
    server_.node().forget(*this);
    if (response_finished()) return;
    if (cut) return abort_response();  // half a backup must not look like a whole one
    if (!response_started()) write_line({});
    stream_ = false;
    finish();
}

// Nobody would learn from a watch without changes that its client has gone.
void ApiCall::on_client_ended() {
    if (!stream_ || call_ != api::Call::kWatch) return;
    drop_watches();
    abort_response();
}

// ---- watches --------------------------------------------------------------------------------------------------------

void ApiCall::take_watch(const api::WatchCreate& create) {
    const store::Revision revision = server_.node().store().revision();
    if (create.request.empty()) {
        write_line(server_.responder().watch_refused(revision, api::kWatchRangeEmpty));
        return;
    }
    if (create.watch_id != 0 && watches_.contains(create.watch_id)) {
        write_line(server_.responder().watch_refused(revision, api::kWatchIdDuplicate));
        return;
    }
    if (watches_.size() >= kStreamWatchesMax) {
        write_line(server_.responder().watch_refused(revision, api::kWatchesTooMany));
        return;
    }
    std::int64_t id = create.watch_id;
    if (id == 0) {
        while (watches_.contains(next_watch_id_))
            ++next_watch_id_;
        id = next_watch_id_++;
    }
    const auto added = server_.add_watch(*this, id, create.request);
    if (!added) {
        write_line(server_.responder().watch_refused(revision, api::kTooManyRequests.text));
        return;
    }
    watches_[id] = *added;
    write_line(server_.responder().watch_created(revision, id));
}

void ApiCall::cancel_watch(std::int64_t watch_id) {
    const auto it = watches_.find(watch_id);
    if (it == watches_.end()) return;
    server_.remove_watch(it->second);
    watches_.erase(it);
    write_line(server_.responder().watch_cancelled(server_.node().store().revision(), watch_id));
    told_progress(watch_id);
}

// Each watch says when it has delivered everything; then one line tells all of them. Who asks again before that gets the
// one line: it is no older than what was asked for first, and each question would cost a pass over all watches.
void ApiCall::tell_progress() {
    if (!progress_owed_.empty()) return;
    if (watches_.empty()) {
        write_line(server_.responder().watch_progress(server_.node().store().revision()));
        return;
    }
    for (const auto& [watch_id, id] : watches_) {
        progress_owed_.insert(watch_id);
        server_.node().watches().request_progress(id);
    }
    server_.node().schedule_turn();
}

// False: nobody asked.
bool ApiCall::told_progress(std::int64_t watch_id) {
    if (progress_owed_.erase(watch_id) == 0) return false;
    if (progress_owed_.empty())
        write_line(server_.responder().watch_progress(server_.node().store().revision()));
    return true;
}

void ApiCall::on_batch(std::int64_t watch_id, store::WatchId, const store::WatchBatch& batch) {
    using Kind = store::WatchBatch::Kind;
    if (batch.kind == Kind::kNothing) return;
    if (batch.kind == Kind::kProgress && told_progress(watch_id)) return;
    write_line(server_.batch_text(watch_id, batch));
    if (batch.kind != Kind::kCancelled) return;
    watches_.erase(watch_id);
    told_progress(watch_id);
}

void ApiCall::on_response_drained() {
    if (backup_ != nullptr) {
        send_backup();
        return;
    }
    for (const store::WatchId id : std::exchange(stalled_, {}))
        server_.node().watches().wake(id);
    server_.node().schedule_turn();
    if (stream_) next_message();
}

void ApiCall::drop_watches() {
    for (const auto& [watch_id, id] : watches_)
        server_.remove_watch(id);
    watches_.clear();
    stalled_.clear();
}

}  // namespace outrider::node
