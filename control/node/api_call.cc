// Unary calls and pages.
#include "control/node/api_call.h"

#include <utility>

#include "base/bytes.h"
#include "base/exposition.h"
#include "control/node/api_backup.h"

#ifndef OUTRIDER_VERSION
#define OUTRIDER_VERSION "0.0.0"
#endif

namespace outrider::node {
namespace {

constexpr std::string_view kText = "text/plain; charset=utf-8";

// Of etcd's API that is spoken here; clients look at it.
constexpr std::string_view kEtcdVersion = "3.4.23";

}  // namespace

ApiCall::ApiCall(ApiServer& server, bool pages_only) : server_(server), pages_only_(pages_only) {}

ApiCall::~ApiCall() {
    *alive_ = false;
    server_.node().forget(*this);
    drop_watches();
    server_.remove_stream(*this);
    server_.hold(held_bytes_, 0);
}

bool ApiCall::hold(std::size_t bytes) {
    const bool taken = server_.hold(held_bytes_, bytes);
    held_bytes_ = bytes;
    if (!taken && stream_)
        fail_stream(api::kTooManyRequests);
    else if (!taken)
        refuse(api::kTooManyRequests);
    return taken;
}

void ApiCall::on_request() {
    if (request().method != http::Method::kPost && answer_page()) return;
    if (pages_only_) {
        send({404, kText, "only /health /ready /live /version and /metrics are served here\n"});
        return;
    }
    const auto found = api::find_call(request().method_text(), request().path());
    if (const auto* answer = std::get_if<api::Answer>(&found)) {
        send(*answer);
        return;
    }
    call_ = std::get<api::Call>(found);
    stream_ = api::is_stream(call_);
    if (!stream_ && request().content_length > api::kBodyBytesMax) {
        refuse(api::problem_of(store::Status::kRequestTooLarge));
        return;
    }
    if (!take_session()) return;
    if (stream_) {
        server_.add_stream(*this);
        let_body_rest();
    }
    if (request().expects_continue && !client_is_http10())
        send_informational(100, http::reason_phrase(100), 0, [](http::HeadWriter&) {});
    if (request_complete()) on_request_end({});
}

void ApiCall::on_request_body(std::span<const std::string_view> slices) {
    if (response_finished()) return;
    if (stream_) {
        for (const std::string_view slice : slices)
            messages_.add(slice);
        if (hold(messages_.pending())) next_message();
        return;
    }
    if (response_started()) return;
    for (const std::string_view slice : slices) {
        if (body_.size() + slice.size() > api::kBodyBytesMax) {
            refuse(api::problem_of(store::Status::kRequestTooLarge));
            return;
        }
        body_.append(slice);
    }
    hold(body_.size());
}

void ApiCall::on_request_end(std::span<const http::Field>) {
    if (stream_) {
        input_ended_ = true;
        next_message();
    } else if (!response_started()) {
        run();
    }
}

void ApiCall::on_bad_request(int status, const char* reason) {
    if (response_started()) {
        drop_watches();
        server_.node().forget(*this);
        abort_response();
    } else {
        send({status, kText, std::string(reason) + "\n"});
    }
}

void ApiCall::on_aborted(AbortReason) {
    backup_.reset();
    *alive_ = false;
    server_.node().forget(*this);
    drop_watches();
}

// False: refused.
bool ApiCall::take_session() {
    std::vector<std::string_view> sessions;
    std::vector<std::string_view> sequences;
    for (const http::FieldRef& field : request().all()) {
        if (iequals(request().name(field), api::kSessionHeader)) sessions.push_back(request().value(field));
        if (iequals(request().name(field), api::kSequenceHeader)) sequences.push_back(request().value(field));
    }
    const auto use = api::session_use(call_, sessions, sequences, server_.node().identity().cluster_id);
    if (const auto* answer = std::get_if<api::Answer>(&use)) {
        send(*answer);
        return false;
    }
    session_ = std::get<api::SessionUse>(use);
    return true;
}

void ApiCall::send(const api::Answer& answer) {
    stream_ = false;
    start_response(answer.status, http::reason_phrase(answer.status), Body::kLength, answer.body.size(),
                   answer.content_type.size() + 64,
                   [&](http::HeadWriter& out) { out.field("Content-Type", answer.content_type); });
    const std::string_view body = answer.body;
    write_body({&body, 1}, false);
    finish();
}

// ---- pages ----------------------------------------------------------------------------------------------------------

bool ApiCall::answer_page() {
    const std::string_view path = request().path();
    const bool ready = server_.node().has_leader() && !server_.draining();
    if (path == "/health") {
        send({ready ? 200 : 503, "application/json",
              ready ? "{\"health\":\"true\"}" : "{\"health\":\"false\"}"});
    } else if (path == "/ready") {
        send({ready ? 200 : 503, kText, ready ? "ready\n" : "no leader is known\n"});
    } else if (path == "/live") {
        send({200, kText, "live\n"});
    } else if (path == "/version") {
        send({200, "application/json",
              "{\"etcdserver\":\"" + std::string(kEtcdVersion) +
                  "\",\"etcdcluster\":\"3.4.0\",\"outrider\":\"" + OUTRIDER_VERSION + "\"}"});
    } else if (path == "/metrics") {
        const Exposition format = negotiate(request().value_of(http::FieldId::kAccept));
        send({200, format.content_type, server_.metrics().render(format.format)});
    } else {
        return false;
    }
    return true;
}

// ---- unary calls ----------------------------------------------------------------------------------------------------

void ApiCall::run() {
    auto parsed = api::parse_request(call_, body_);
    std::string().swap(body_);
    if (const auto* answer = std::get_if<api::Answer>(&parsed)) {
        send(*answer);
        return;
    }
    request_ = std::move(std::get<api::Request>(parsed));
    Node& node = server_.node();
    const auto command = [&](auto& what) {
        begin_command({session_.session, session_.sequence, 0, std::move(what)});
    };
    const store::Revision revision = node.store().revision();
    switch (call_) {
        case api::Call::kRange:
            begin(std::get<store::RangeRequest>(*request_));
            break;
        case api::Call::kPut:
            command(std::get<store::PutRequest>(*request_));
            break;
        case api::Call::kDeleteRange:
            command(std::get<store::DeleteRequest>(*request_));
            break;
        case api::Call::kTxn:
            begin(std::get<store::TxnRequest>(*request_));
            break;
        case api::Call::kCompaction:
            command(std::get<store::CompactRequest>(*request_));
            break;
        case api::Call::kLeaseGrant:
            command(std::get<store::LeaseGrantRequest>(*request_));
            break;
        case api::Call::kLeaseRevoke:
            command(std::get<store::LeaseRevokeRequest>(*request_));
            break;
        case api::Call::kLeaseTimeToLive:
            node.ask_lease(*this, std::get<api::LeaseTimeToLive>(*request_).id, false);
            break;
        case api::Call::kLeaseLeases:
            node.read(*this);
            break;
        case api::Call::kStatus:
            send(server_.responder().status(revision, status()));
            break;
        case api::Call::kHash:
            begin_hash();
            break;
        case api::Call::kDefragment:
        case api::Call::kAlarm:
            send(server_.responder().empty());
            break;
        case api::Call::kMemberList:
            send(server_.responder().members(server_.members()));
            break;
        case api::Call::kMemberAdd:
        case api::Call::kMemberRemove:
        case api::Call::kMemberUpdate:
        case api::Call::kMemberPromote:
            begin_member_change();
            break;
        case api::Call::kSnapshot:
            begin_backup();
            break;
        case api::Call::kSessionOpen:
            begin_command({{}, 0, 0, store::SessionOpenRequest{}});
            break;
        case api::Call::kSessionClose:
            begin_command({{},
                           0,
                           0,
                           store::SessionCloseRequest{api::session_named(
                               std::get<api::SessionClose>(*request_).name, node.identity().cluster_id)}});
            break;
        case api::Call::kLeaseKeepAlive:
        case api::Call::kWatch:
            send(api::refuse(api::Code::kUnimplemented, "unknown call"));
            break;
    }
}

void ApiCall::begin(store::RangeRequest& range) {
    if (const store::Status status = store::Store::check(range, server_.node().limits());
        status != store::Status::kOk) {
        refuse(api::problem_of(status));
    } else if (range.serializable) {
        answer_range();
    } else {
        server_.node().read(*this);
    }
}

void ApiCall::answer_range() {
    const Node& node = server_.node();
    const auto result = node.store().range(std::get<store::RangeRequest>(*request_), node.limits());
    send(server_.responder().range(node.store().revision(), result));
}

void ApiCall::begin(store::TxnRequest& txn) {
    // With a session it goes through the log although it only reads: its answer is to be the same when it is repeated.
    if (session_.sequence != 0 || !store::Store::read_only(txn)) {
        begin_command({session_.session, session_.sequence, 0, std::move(txn)});
        return;
    }
    const store::Command command{{}, 0, 0, txn};
    if (const auto status = store::Store::check(command, server_.node().limits());
        status != store::Status::kOk) {
        refuse(api::problem_of(status));
    } else {
        server_.node().read(*this);
    }
}

void ApiCall::begin_command(store::Command command) {
    Node& node = server_.node();
    store::Status status = store::Store::check(command, node.limits());
    if (status == store::Status::kOk) status = node.store().admit(command, node.limits());
    if (status == store::Status::kNoSpace && session_.sequence != 0) {
        without_space_ = true;
        node.read(*this);
    } else if (status != store::Status::kOk) {
        refuse(api::problem_of(status));
    } else {
        node.propose(*this, std::move(command));
    }
}

// The store shows what had taken effect when this was asked; whatever had is answered so, also when it filled the store.
void ApiCall::answer_without_space() {
    const store::SessionTable& sessions = server_.node().store().sessions();
    switch (sessions.judge(session_.session, session_.sequence)) {
        case store::SessionTable::Verdict::kRepeat:
            send(server_.responder().command(call_, sessions.repeat(session_.session)));
            break;
        case store::SessionTable::Verdict::kStale:
            refuse(api::problem_of(store::Status::kSessionStale));
            break;
        case store::SessionTable::Verdict::kUnknown:
            refuse(api::problem_of(store::Status::kSessionUnknown));
            break;
        case store::SessionTable::Verdict::kApply:
            refuse(api::problem_of(store::Status::kNoSpace));
            break;
    }
}

void ApiCall::on_applied(const store::Response& response) {
    send(server_.responder().command(call_, response));
}

void ApiCall::on_readable() {
    const Node& node = server_.node();
    if (without_space_) {
        answer_without_space();
    } else if (call_ == api::Call::kRange) {
        answer_range();
    } else if (call_ == api::Call::kTxn) {
        send(server_.responder().command(call_, node.store().read(std::get<store::TxnRequest>(*request_))));
    } else {
        send(server_.responder().leases(node.store().revision(), node.store().leases()));
    }
}

void ApiCall::answer_time_to_live(std::int64_t seconds) {
    const auto& ask = std::get<api::LeaseTimeToLive>(*request_);
    const store::Store& store = server_.node().store();
    const store::LeaseTable::Lease* lease = store.leases().find(ask.id);
    if (lease == nullptr || seconds < 0) {
        send(server_.responder().time_to_live(store.revision(), ask.id, -1, 0, {}));
        return;
    }
    const std::vector<std::string> keys = ask.keys ? store.leases().keys(ask.id) : std::vector<std::string>();
    send(server_.responder().time_to_live(store.revision(), ask.id, seconds, lease->ttl_seconds, keys));
}

void ApiCall::on_lease(std::int64_t seconds) {
    if (!stream_) {
        answer_time_to_live(seconds);
        return;
    }
    // etcd answers a lease that it does not know with no TTL at all.
    write_line(server_.responder().keep_alive(server_.node().store().revision(), lease_,
                                              std::max<std::int64_t>(seconds, 0)));
    next_message();
}

void ApiCall::refuse(const api::Problem& problem) {
    if (problem.text == api::kNoSpace.text)
        send(api::refuse_without_space(Bytes{server_.node().limits().store_bytes_max}));
    else
        send(api::refuse(problem));
}

void ApiCall::on_refused(const api::Problem& problem) {
    if (stream_) {
        fail_stream(problem);
    } else {
        refuse(problem);
    }
}

api::Status ApiCall::status() const {
    Node& node = server_.node();
    api::Status out;
    out.version = kEtcdVersion;
    out.db_size = static_cast<std::int64_t>(node.storage().disk_bytes());
    out.db_size_in_use = static_cast<std::int64_t>(node.store().bytes());
    out.leader = node.core().leader().value;
    out.raft_index = node.core().commit_index().value;
    out.raft_term = node.core().term().value;
    out.raft_applied_index = node.store().applied_index();
    if (!node.has_leader()) out.errors.emplace_back(api::kNoLeader.text);
    out.learner = !node.members().voter(node.identity().node);
    return out;
}

}  // namespace outrider::node
