// An exchange in a batch (docs/configuration.md, batch): its body is taken in and queued; then it is a part of a call that one of the
// members carries. Which calls there are, and who carries them, is batcher.h's.
//
//     Gather -> kBody --request_end--> kWaits --a call leaves--> kInCall --its part of the answer--> the client's answer
//                           \-> by itself, or refused
//
// The carrier is a member like the others, and besides the call's exchange: what its attempts tell is the call's (carries()). Its client may go
// away: the call goes on for the others, and the exchange is detached.
#include "base/bytes.h"
#include "base/check.h"
#include "base/http/kept_head.h"
#include "filters/policy/retry.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

namespace outrider::proxy {

using Stage = BatchSeat::Stage;

namespace {

std::string head_text(int status, std::string_view content_type,
                      std::span<const std::pair<std::string, std::string>> fields) {
    std::string out(http::reason_phrase(status));
    out += "\r\n";
    const auto line = [&out](std::string_view name, std::string_view value) {
        out.append(name).append(": ").append(value).append("\r\n");
    };
    bool typed = content_type.empty();
    for (const auto& [name, value] : fields) {
        typed |= iequals(name, "Content-Type");
        line(name, value);
    }
    if (!typed) line("Content-Type", content_type);
    return out;
}

}  // namespace

// ---- a member ---------------------------------------------------------------------------------------------------------

void Exchange::gather() {
    if (!batch_) batch_ = std::make_unique<BatchSeat>();
    *batch_ = BatchSeat();
    batch_->batcher = snapshot_->batchers[route_->index];
    batch_->stage = Stage::kBody;
    if (context_.time_left) worker_.loop().schedule(*this, time_left());
    if (owns_key()) {  // its body is here already
        admit_member();
        return;
    }
    if (request().framing == http::Framing::kLength &&
        request().content_length > batch_->batcher->settings().max_bytes.value) {
        close_after();
        fail(Failure::kBatchMemberTooLarge);
        return;
    }
    if (!body_.empty()) {  // came while a filter made the exchange wait
        const std::string early = std::move(body_);
        body_.clear();
        const std::string_view piece = early;
        if (!take_member_body({&piece, 1})) return;
    }
    if (request_complete()) {
        admit_member();
        return;
    }
    if (request().expects_continue) send_informational(100, "Continue", 0, [](http::HeadWriter&) {});
    resume_request();
}

// False: refused, and this exchange may be gone.
bool Exchange::take_member_body(std::span<const std::string_view> slices) {
    for (const std::string_view s : slices) {
        const bool fits = body_.size() + s.size() <= batch_->batcher->settings().max_bytes.value;
        if (!fits || !worker_.hold_bytes(s.size())) {
            close_after();
            fail(fits ? Failure::kBatchFull : Failure::kBatchMemberTooLarge);
            return false;
        }
        held_bytes_ += s.size();
        body_.append(s);
    }
    return true;
}

void Exchange::admit_member() {
    if (http::FieldRef* expect = request().find(http::FieldId::kExpect)) expect->dropped = true;
    auto decision = batch_->batcher->decide(body_);
    using Verdict = policy::BatchAdmission::Verdict;
    if (decision.verdict == Verdict::kRefused) {
        fail(Failure::kBatchMember, decision.reason);
        return;
    }
    auto arrival = Batcher::Arrival::kApart;
    if (decision.verdict == Verdict::kMember) {
        batch_->item = std::move(decision.item);
        arrival = batch_->batcher->arrive(*this, owns_key());
    }
    switch (arrival) {
        case Batcher::Arrival::kQueued:
            std::string().swap(body_);  // the item is what is left of it
            break;
        case Batcher::Arrival::kTooLarge:
            fail(Failure::kBatchMemberTooLarge);
            break;
        case Batcher::Arrival::kFull:
            fail(Failure::kBatchFull);
            break;
        case Batcher::Arrival::kApart:
            batch_->stage = Stage::kNone;
            run_filters();
            break;
    }
}

// When its time is over.
Instant Exchange::ends_by() const {
    return context_.time_left ? began_ + *context_.time_left : Instant::max();
}

// Its part of the answer, or the answer to all. `head`: as http::kept_head() writes it. Last: this exchange may be gone.
void Exchange::take_part(int status, const std::string& head, std::string_view body) {
    batch_->stage = Stage::kNone;
    batch_->batcher->forget(batch_->id);
    http::KeptHead kept;
    if (!kept.parse(head, status)) {
        fail(Failure::kBatchAnswer, "The head of this request's part of the answer is not valid HTTP.");
        return;
    }
    upstream_done_ = true;
    if (!owns_key()) {
        worker_.loop().cancel(*this);
        answer_kept(kept.head(), body);
        return;
    }
    record_head(kept.head());
    record_body({&body, 1});
    settle_answer({});
}

// It does not want its answer any more, or has one of its own.
void Exchange::leave_batch() {
    if (!batch_) return;
    const Stage stage = batch_->stage;
    batch_->stage = Stage::kNone;
    if (stage != Stage::kWaits && stage != Stage::kInCall) return;
    Exchange* const carrier = batch_->carrier;
    batch_->batcher->leave(*this);
    if (carrier != nullptr) carrier->part_left(batch_->id);
}

void Exchange::clear_batch() {
    if (carries()) drop_call(Failure::kRouteTimeout, {}, {});
    leave_batch();
    if (batch_) *batch_ = BatchSeat();
}

// ---- the carrier ------------------------------------------------------------------------------------------------------

void Exchange::carry(std::unique_ptr<BatchCall> call) {
    batch_->call = std::move(call);
    compose_call();
    if (batch_->filtered) {  // of a call that failed: once more, by itself
        winner_ = nullptr;
        upstream_done_ = false;
        held_until_ = {};
        begin_attempt(false);
        return;
    }
    batch_->filtered = true;
    // What is one member's own: its key stands for it alone, and the answer is read here, not by a client that can decompress.
    const auto& idempotency = route_->settings->idempotency;
    for (http::FieldRef& f : request().all()) {
        const std::string_view name = request().name(f);
        f.dropped |= f.id == http::FieldId::kContentType || f.id == http::FieldId::kTrailer ||
                     iequals(name, "Accept-Encoding") || (idempotency && iequals(name, idempotency->header));
    }
    context_.request_fields.add("Content-Type", policy::batch_content_type(batch_->batcher->format()));
    run_filters();
}

// The call's body from the parts that are still wanted. Only before it has left.
void Exchange::compose_call() {
    BatchCall& call = *batch_->call;
    std::erase_if(call.parts, [](const BatchCall::Part& part) { return part.left; });
    std::vector<const policy::BatchItem*> items;
    for (const BatchCall::Part& part : call.parts)
        items.push_back(&part.item);
    body_ = policy::batch_body(batch_->batcher->format(), items);
    body_gone_ = false;
    request().framing = http::Framing::kLength;
    request().content_length = body_.size();
}

// Bytes of it are about to go: from here on it is not known what becomes of its parts.
void Exchange::call_leaves() {
    BatchCall& call = *batch_->call;
    call.sent = true;
    for (const BatchCall::Part& part : call.parts) {
        Exchange* const member = part.left ? nullptr : batch_->batcher->find(part.id);
        if (member != nullptr && member->guard_) member->guard_->left = true;
    }
}

void Exchange::part_left(policy::MemberId id) {
    BatchCall& call = *batch_->call;
    std::size_t wanted = 0;
    for (BatchCall::Part& part : call.parts) {
        part.left |= part.id == id;
        wanted += part.left ? 0 : 1;
    }
    call.repeatable = false;  // who has left may have told its store so
    if (wanted != 0) {
        if (!call.sent) compose_call();
        return;
    }
    const std::unique_ptr<BatchCall> over = std::move(batch_->call);
    worker_.give_back_bytes(over->held);
    batch_->batcher->given_up(*over);
    stop_trying(false);
    if (detached_) end_detached();
}

void Exchange::call_head(const http::ResponseHead& head) {
    batch_->call->status = head.status;
    batch_->call->content_type = head.value_of(http::FieldId::kContentType);
}

void Exchange::call_body(std::span<const std::string_view> slices) {
    BatchCall& call = *batch_->call;
    for (const std::string_view s : slices) {
        const bool fits = call.answer.size() + s.size() <= Batcher::kAnswerMax;
        if (!fits || !worker_.hold_bytes(s.size())) {
            stop_trying(false);
            call_failed(Failure::kBatchAnswer,
                        fits ? "Too many bytes of answers are held already."
                             : "The answer to the batch is larger than 8 MiB.",
                        {});
            return;
        }
        call.held += s.size();
        call.answer.append(s);
    }
}

// The call's answer is whole. Last: this exchange may be gone.
void Exchange::call_answered() {
    const std::unique_ptr<BatchCall> call = std::move(batch_->call);
    const Ref<Batcher> batcher = batch_->batcher;
    worker_.give_back_bytes(call->held);
    batcher->let_go(*call);
    const bool detached = detached_;
    const auto give = [&](policy::MemberId id, int status, const std::string& head, std::string_view body) {
        if (Exchange* const member = batcher->find(id)) member->take_part(status, head, body);
    };
    if (call->status < 200 || call->status > 299) {
        // The application refused all of it, or the route says that this status is worth another try.
        const bool split = batcher->settings().split_on_failure &&
                           ((call->status >= 400 && call->status <= 499) ||
                            (route_->settings->retry && policy::status_listed(route_->retry, call->status)));
        const std::string head = head_text(call->status, call->content_type, {});
        for (const policy::MemberId id : batcher->refused(*call, split))
            give(id, call->status, head, call->answer);
    } else if (const auto split = batcher->split(*call); !split) {
        batcher->fail(*call, Failure::kBatchAnswer, split.error(), {});
    } else {
        batcher->answered(*call);
        for (std::size_t i = 0; i < call->parts.size(); ++i) {
            const policy::BatchSplitter::Part& part = split->parts[i];
            if (call->parts[i].left) continue;
            Exchange* const member = batcher->find(call->parts[i].id);
            if (member == nullptr) continue;
            if (!part.error.empty()) {
                batcher->forget(call->parts[i].id);
                member->batch_->stage = Stage::kNone;
                member->fail(Failure::kBatchAnswer, part.error);
                continue;
            }
            const std::string body = part.joined();
            give(call->parts[i].id, part.status,
                 head_text(part.status, body.empty() ? "" : "application/json", part.fields), body);
        }
    }
    if (detached) end_detached();
}

// Without an answer that could be taken apart: everybody fails alike.
void Exchange::call_failed(Failure failure, std::string_view detail, Duration retry_after) {
    drop_call(failure, detail, retry_after);
    if (detached_) end_detached();
}

void Exchange::drop_call(Failure failure, std::string_view detail, Duration retry_after) {
    const std::unique_ptr<BatchCall> call = std::move(batch_->call);
    worker_.give_back_bytes(call->held);
    batch_->batcher->let_go(*call);
    batch_->batcher->fail(*call, failure, detail, retry_after);
}

}  // namespace outrider::proxy
