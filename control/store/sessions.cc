#include "control/store/sessions.h"

#include "control/store/bugs.h"
#include "control/store/varint.h"

namespace outrider::store {
namespace {

constexpr int kAnswerDepthMax = 32;

void encode(Encoder& out, const KeyValue& kv) {
    out.text(kv.key);
    out.signed_number(kv.create_revision.value);
    out.signed_number(kv.mod_revision.value);
    out.signed_number(kv.version);
    out.text(kv.value);
    out.signed_number(kv.lease.value);
}

void encode(Encoder& out, const std::vector<KeyValue>& kvs) {
    out.number(kvs.size());
    for (const KeyValue& kv : kvs)
        encode(out, kv);
}

void encode(Encoder& out, const TxnResponse& txn);

struct BodyEncoder {
    Encoder& out;
    void operator()(std::monostate) const {}
    void operator()(const RangeResponse& r) const {
        encode(out, r.kvs);
        out.byte(r.more ? 1 : 0);
        out.signed_number(r.count);
    }
    void operator()(const PutResponse& r) const {
        out.byte(r.prev_kv ? 1 : 0);
        if (r.prev_kv) encode(out, *r.prev_kv);
    }
    void operator()(const DeleteResponse& r) const {
        out.signed_number(r.deleted);
        encode(out, r.prev_kvs);
    }
    void operator()(const TxnResponse& r) const { encode(out, r); }
    void operator()(const LeaseGrantResponse& r) const {
        out.signed_number(r.id.value);
        out.signed_number(r.ttl_seconds);
    }
};

template <typename Body>
void encode_body(Encoder& out, const Body& body) {
    out.byte(static_cast<std::uint8_t>(body.index()));
    std::visit(BodyEncoder{out}, body);
}

void encode(Encoder& out, const TxnResponse& txn) {
    out.byte(txn.succeeded ? 1 : 0);
    out.number(txn.responses.size());
    for (const OpResponse& response : txn.responses) {
        out.signed_number(response.revision.value);
        encode_body(out, response.body);
    }
}

KeyValue decode_kv(Decoder& in) {
    KeyValue kv;
    kv.key = in.text();
    kv.create_revision = {in.signed_number()};
    kv.mod_revision = {in.signed_number()};
    kv.version = in.signed_number();
    kv.value = in.text();
    kv.lease = {in.signed_number()};
    return kv;
}

std::vector<KeyValue> decode_kvs(Decoder& in) {
    std::vector<KeyValue> kvs;
    for (std::uint64_t n = in.number(); n > 0 && in.ok(); --n)
        kvs.push_back(decode_kv(in));
    return kvs;
}

PutResponse decode_put(Decoder& in) {
    PutResponse put;
    if (in.byte() != 0) put.prev_kv = decode_kv(in);
    return put;
}

DeleteResponse decode_delete(Decoder& in) {
    DeleteResponse response;
    response.deleted = in.signed_number();
    response.prev_kvs = decode_kvs(in);
    return response;
}

RangeResponse decode_range(Decoder& in) {
    RangeResponse range;
    range.kvs = decode_kvs(in);
    range.more = in.byte() != 0;
    range.count = in.signed_number();
    return range;
}

TxnResponse decode_txn(Decoder& in, int depth) {
    TxnResponse txn;
    if (depth == 0) in.fail();
    txn.succeeded = in.byte() != 0;
    for (std::uint64_t n = in.number(); n > 0 && in.ok(); --n) {
        OpResponse op;
        op.revision = {in.signed_number()};
        switch (in.byte()) {
            case 0:
                break;
            case 1:
                op.body = decode_range(in);
                break;
            case 2:
                op.body = decode_put(in);
                break;
            case 3:
                op.body = decode_delete(in);
                break;
            case 4:
                op.body = decode_txn(in, depth - 1);
                break;
            default:
                in.fail();
        }
        txn.responses.push_back(std::move(op));
    }
    return txn;
}

}  // namespace

std::string encode_answer(const Response& response) {
    std::string bytes;
    Encoder out(bytes);
    out.byte(static_cast<std::uint8_t>(response.status));
    out.signed_number(response.revision.value);
    out.number(response.session.value);
    encode_body(out, response.body);
    if (bytes.size() > kAnswerBytesMax) bytes.clear();
    return bytes;
}

std::optional<Response> decode_answer(std::string_view bytes) {
    Decoder in(bytes);
    Response response;
    const std::uint8_t status = in.byte();
    if (status > static_cast<std::uint8_t>(Status::kSessionAnswerGone)) in.fail();
    response.status = static_cast<Status>(status);
    response.revision = {in.signed_number()};
    response.session = {in.number()};
    switch (in.byte()) {
        case 0:
            break;
        case 1:
            response.body = decode_put(in);
            break;
        case 2:
            response.body = decode_delete(in);
            break;
        case 3:
            response.body = decode_txn(in, kAnswerDepthMax);
            break;
        case 4: {
            LeaseGrantResponse grant;
            grant.id = {in.signed_number()};
            grant.ttl_seconds = in.signed_number();
            response.body = grant;
            break;
        }
        default:
            in.fail();
    }
    if (!in.ok() || !in.at_end()) return std::nullopt;
    return response;
}

bool SessionTable::open(SessionId id, std::int64_t now_millis) {
    if (sessions_.size() >= kSessionsMax) return false;
    restore(id, {.sequence = 0, .used_millis = now_millis, .revision = {}, .answer = {}});
    return true;
}

void SessionTable::restore(SessionId id, Session session) {
    by_use_.emplace(session.used_millis, id);
    sessions_.insert_or_assign(id, std::move(session));
}

void SessionTable::close(SessionId id) {
    const auto it = sessions_.find(id);
    if (it == sessions_.end()) return;
    by_use_.erase({it->second.used_millis, id});
    sessions_.erase(it);
}

SessionTable::Verdict SessionTable::judge(SessionId id, std::uint64_t sequence) const {
    const auto it = sessions_.find(id);
    if (it == sessions_.end()) return Verdict::kUnknown;
    if (sequence > it->second.sequence) return Verdict::kApply;
    if (sequence == it->second.sequence && sequence != 0)
        return bug(Bug::kRetryTakesEffect) ? Verdict::kApply : Verdict::kRepeat;
    return Verdict::kStale;
}

Response SessionTable::repeat(SessionId id) const {
    const Session& session = sessions_.at(id);
    if (auto answer = decode_answer(session.answer)) return std::move(*answer);
    Response gone;
    gone.status = Status::kSessionAnswerGone;
    gone.revision = session.revision;
    return gone;
}

void SessionTable::remember(SessionId id, std::uint64_t sequence, std::int64_t now_millis,
                            const Response& response) {
    const auto it = sessions_.find(id);
    if (it == sessions_.end()) return;  // the command closed it
    Session& session = it->second;
    by_use_.erase({session.used_millis, id});
    by_use_.emplace(now_millis, id);
    session = {sequence, now_millis, response.revision, encode_answer(response)};
}

void SessionTable::expire(std::int64_t now_millis) {
    while (!by_use_.empty() && by_use_.begin()->first < now_millis - kSessionIdleMillis)
        close(by_use_.begin()->second);
}

}  // namespace outrider::store
