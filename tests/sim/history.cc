#include "tests/sim/history.h"

#include <algorithm>
#include <variant>

namespace outrider::sim {
namespace {

using store::Revision;
using store::Status;

std::string number(Revision revision) {
    return std::to_string(revision.value);
}

// What a range request answers at a revision.
store::RangeResponse expected(const Chronicle& chronicle, const store::RangeRequest& request, Revision at) {
    store::RangeResponse out;
    out.kvs = chronicle.range(request.range, at);
    out.count = static_cast<std::int64_t>(out.kvs.size());
    const auto limit = static_cast<std::size_t>(request.limit);
    if (limit > 0 && out.kvs.size() > limit) {
        out.kvs.resize(limit);
        out.more = true;
    }
    for (store::KeyValue& kv : out.kvs) {
        if (request.keys_only) kv.value.clear();
    }
    return out;
}

bool equal(const store::RangeResponse& a, const store::RangeResponse& b) {
    return a.kvs == b.kvs && a.count == b.count && a.more == b.more;
}

class WriteCheck {
  public:
    WriteCheck(Chronicle& chronicle, const Answer& answer, Revision floor)
        : chronicle_(chronicle), answer_(answer), at_(answer.revision), floor_(floor) {}

    void operator()(const store::PutRequest& put) {
        const auto* response = std::get_if<store::PutResponse>(&answer_.response.body);
        changed();
        check(response != nullptr && chronicle_.changes(at_).size() == 1, "a put is one change");
        if (response != nullptr) check_put(put, *response, at_ + -1);
    }

    void operator()(const store::DeleteRequest& request) {
        const auto* response = std::get_if<store::DeleteResponse>(&answer_.response.body);
        if (response == nullptr) return check(false, "a deletion is answered as one");
        if (response->deleted == 0) {
            unchanged();
            check(chronicle_.range(request.range, at_).empty(), "a deletion finds what is there");
            return;
        }
        changed();
        check(chronicle_.changes(at_).size() == static_cast<std::size_t>(response->deleted),
              "a deletion's count is that of its changes");
        check_delete(request, *response);
    }

    void operator()(const store::TxnRequest& txn) {
        const auto* response = std::get_if<store::TxnResponse>(&answer_.response.body);
        if (response == nullptr) return check(false, "a transaction is answered as one");
        const auto& ops = response->succeeded ? txn.success : txn.failure;
        check(ops.size() == response->responses.size(), "a transaction answers each operation");
        const bool writes = std::any_of(response->responses.begin(), response->responses.end(), changes);
        if (writes)
            changed();
        else
            unchanged();
        const Revision before = writes ? at_ + -1 : at_;
        for (const store::Compare& compare : txn.compare) {
            const store::KeyValue* kv = chronicle_.at(compare.range.key, before);
            const std::int64_t have = kv == nullptr ? 0
                                      : compare.target == store::Compare::Target::kCreate
                                          ? kv->create_revision.value
                                          : kv->mod_revision.value;
            check((have == compare.number) == response->succeeded, "a comparison sees the state before it");
        }
        for (std::size_t i = 0; i < std::min(ops.size(), response->responses.size()); ++i) {
            check_op(ops[i], response->responses[i], before);
        }
    }

    void operator()(const store::CompactRequest&) {
        unchanged();
        check(answer_.status != Status::kFutureRevision, "a revision that was known is not in the future");
    }
    void operator()(const store::LeaseGrantRequest&) { unchanged(); }
    void operator()(const store::LeaseRevokeRequest&) { unchanged(); }
    void operator()(const store::SessionOpenRequest&) {}
    void operator()(const store::SessionCloseRequest&) {}
    void operator()(const store::SessionsAgeRequest&) {}

    void check(bool holds, const std::string& what) {
        if (!holds)
            chronicle_.broken("not linearizable: revision " + number(at_) + ": " + what + " (it does not)");
    }
    void changed() {
        if (at_ <= floor_) {
            chronicle_.broken("not linearizable: a change got revision " + number(at_) + " though " +
                              number(floor_) + " was known before it began");
        }
    }
    void unchanged() {
        if (at_ < floor_) {
            chronicle_.broken("not linearizable: an answer of revision " + number(at_) + " though " +
                              number(floor_) + " was known before it was asked");
        }
    }

  private:
    static bool changes(const store::OpResponse& response) {
        if (std::holds_alternative<store::PutResponse>(response.body)) return true;
        const auto* deleted = std::get_if<store::DeleteResponse>(&response.body);
        return deleted != nullptr && deleted->deleted > 0;
    }

    void check_put(const store::PutRequest& put, const store::PutResponse& response, Revision before) {
        const store::KeyValue* kv = chronicle_.at(put.key, at_);
        const store::KeyValue* old = chronicle_.at(put.key, before);
        check(kv != nullptr && kv->mod_revision == at_ && kv->value == put.value && kv->lease == put.lease,
              "a put's value stands at its revision");
        check(kv != nullptr && kv->version == (old == nullptr ? 1 : old->version + 1) &&
                  kv->create_revision == (old == nullptr ? at_ : old->create_revision),
              "a put raises the key's version by one");
        if (!put.prev_kv) return;
        check(old == nullptr ? !response.prev_kv : response.prev_kv && *response.prev_kv == *old,
              "a put answers what was before");
    }

    void check_delete(const store::DeleteRequest& request, const store::DeleteResponse& response) {
        const auto before = chronicle_.range(request.range, at_ + -1);
        check(before.size() == static_cast<std::size_t>(response.deleted) &&
                  chronicle_.range(request.range, at_).empty(),
              "a deletion leaves nothing of what was there");
        check(!request.prev_kv || response.prev_kvs == before, "a deletion answers what was before");
    }

    void check_op(const store::Op& op, const store::OpResponse& response, Revision before) {
        if (const auto* put = std::get_if<store::PutRequest>(&op.request)) {
            const auto* body = std::get_if<store::PutResponse>(&response.body);
            check(body != nullptr, "a put is answered as one");
            if (body != nullptr) check_put(*put, *body, before);
        }
        if (const auto* erase = std::get_if<store::DeleteRequest>(&op.request)) {
            const auto* body = std::get_if<store::DeleteResponse>(&response.body);
            check(body != nullptr, "a deletion is answered as one");
            if (body != nullptr && body->deleted > 0) check_delete(*erase, *body);
        }
        if (const auto* range = std::get_if<store::RangeRequest>(&op.request)) {
            const auto* body = std::get_if<store::RangeResponse>(&response.body);
            check(body != nullptr && equal(*body, expected(chronicle_, *range, at_)),
                  "a range in a transaction sees what was written before it");
        }
    }

    Chronicle& chronicle_;
    const Answer& answer_;
    const Revision at_;
    const Revision floor_;
};

}  // namespace

void check_read(KeySpace& space, const Request& request, const Answer& answer, Revision floor) {
    Chronicle& chronicle = space.chronicle();
    const bool linearizable = request.kind == Request::Kind::kRead;
    const Revision asked = request.range.revision;
    if (linearizable && answer.revision < floor) {
        chronicle.broken("not linearizable: a read saw revision " + number(answer.revision) + " though " +
                         number(floor) + " was known before it began");
    }
    chronicle.learn(answer.revision);
    if (answer.status == Status::kCompacted) {
        if (asked >= chronicle.compacted())
            chronicle.broken("a read is refused as compacted, which it is not");
        return;
    }
    if (answer.status == Status::kFutureRevision) {
        if (asked <= answer.revision || linearizable) chronicle.broken("a read is refused as too early");
        return;
    }
    const Revision at = asked.value > 0 ? asked : answer.revision;
    if (answer.status != Status::kOk || !equal(answer.range, expected(chronicle, request.range, at)))
        chronicle.broken("not linearizable: a read did not see the state of revision " + number(at));
}

void check_write(KeySpace& space, const Request& request, const Answer& answer, Revision floor) {
    Chronicle& chronicle = space.chronicle();
    if (answer.status == Status::kSessionUnknown) return;
    WriteCheck check(chronicle, answer, floor);
    if (answer.status == Status::kSessionAnswerGone) {
        check.changed();
        check.check(!chronicle.changes(answer.revision).empty(), "a command took effect at its revision");
    } else if (answer.status != Status::kOk) {
        check.unchanged();
    } else {
        std::visit(check, request.command.request);
    }
    chronicle.learn(answer.revision);
}

}  // namespace outrider::sim
