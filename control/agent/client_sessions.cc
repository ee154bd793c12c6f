// Sessions for the writes that are to take effect once.
#include "control/agent/pending_call.h"
#include "control/api/errors.h"

namespace outrider::agent {
namespace {

// What was asked does not know sessions: an etcd, or what stands before it, answers that there is no such path.
bool knows_no_sessions(int code) {
    return code == 0 || code == static_cast<int>(api::Code::kNotFound) ||
           code == static_cast<int>(api::Code::kUnimplemented);
}

}  // namespace

// Ends no call.
void Client::serve_line() {
    while (const auto boarding = sessions_.next()) {
        PendingCall& call = *calls_.at(boarding->write);
        call.set_ticket(boarding->ticket);
        attempt(call);
    }
    if (sessions_.wants_session(loop_.now())) open_session();
}

// Beyond the bounds on calls, which those in line have been held to. Two may come of it when an answer is lost; the one that nobody
// uses ends by itself.
void Client::open_session() {
    sessions_.opening();
    attempt(add(Rpc<v3::SessionOpenRequest>::kPath, "{}", Effect::kRepeatable, {},
                [this](RawReply raw) { on_session(std::move(raw)); }));
}

void Client::on_session(RawReply raw) {
    if (raw.outcome == Outcome::kOk) {
        v3::SessionOpenResponse opened;
        if (from_json(raw.body, opened) && opened.session() != 0) {
            sessions_.opened(opened.session());
            serve_line();
            return;
        }
        raw.outcome = Outcome::kRefused;
        raw.code = 0;
        raw.reason = "its answer is not the API's";
    }
    if (raw.outcome != Outcome::kRefused) {
        sessions_.not_opened();
        serve_line();
        return;
    }
    if (knows_no_sessions(raw.code)) {
        raw.code = static_cast<int>(api::Code::kUnimplemented);
        raw.reason =
            "there are no client sessions, which a write that takes effect once needs: " + raw.reason;
    }
    for (const CallId id : sessions_.refused(loop_.now()))
        calls_.at(id)->end_later(raw);
}

void Client::change_session(PendingCall& call) {
    sessions_.lost(call.id());
    call.stand_in_line();
    serve_line();
}

void Client::close_sessions(std::function<void()> done) {
    const std::vector<std::uint64_t> names = sessions_.take_free();
    const auto left = std::make_shared<std::size_t>(names.size() + 1);
    const auto one_is_over = [left, done = std::move(done)] {
        if (--*left == 0) done();
    };
    for (const std::uint64_t name : names) {
        v3::SessionCloseRequest request;
        request.set_session(name);
        call(request, {}, [one_is_over](const Reply<v3::SessionCloseResponse>&) { one_is_over(); });
    }
    add({}, {}, Effect::kRead, {}, [one_is_over](const RawReply&) { one_is_over(); }).end_later({});
}

}  // namespace outrider::agent
