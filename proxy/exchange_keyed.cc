// An exchange with an idempotency key (docs/idempotency.md): held until its store says what becomes of it, recorded, given again.
//
//     Hold -> kBody --request_end--> kAsking --Forward--> kOwner --answered, failed--> kSettling -> the client's answer
//                                       \--anything else--> the client's answer
//
// The answer's last byte goes out when its record is durable, so answers are kept back whole up to max_response. A client that goes
// away changes nothing for the owner of a key: the exchange is detached from its connection and ends with its report.
#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "base/http/kept_head.h"
#include "base/overloaded.h"
#include "base/units.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

namespace outrider::proxy {

using filters::KeyOutcome;
using Stage = KeyGuard::Stage;

namespace {

constexpr Duration kConflictRetryAfter = std::chrono::seconds(1);
// A full store has room when its oldest key expires, in a day perhaps; an operator makes some sooner.
constexpr Duration kFullRetryAfterMax = std::chrono::minutes(1);

}  // namespace

// ---- before it is forwarded -------------------------------------------------------------------------------------------

const config::IdempotencySettings& Exchange::key_settings() const {
    return *route_->settings->idempotency;
}

void Exchange::hold() {
    if (!guard_) guard_ = std::make_unique<KeyGuard>();
    guard_->stage = Stage::kBody;
    guard_->store = snapshot_->stores[route_->index];
    guard_->fingerprint.emplace(
        request().method_text(), request().path_and_query(),
        request().find(http::FieldId::kContentType) != nullptr
            ? std::optional<std::string_view>(request().value_of(http::FieldId::kContentType))
            : std::nullopt);
    // The filters behind this one say it again: who waits for the store has no more time than who is forwarded.
    const Duration allowed = filters::time_allowed(context_).value_or(route_->settings->timeout);
    if (allowed <= Duration(0)) {
        guard_->stage = Stage::kNone;
        fail(Failure::kDeadlinePassed);
        return;
    }
    worker_.loop().schedule(*this, allowed - (worker_.loop().now() - began_));
    const std::uint64_t body_max = key_settings().max_request.value;
    if (request().framing == http::Framing::kLength && request().content_length > body_max) {
        body_too_large();
        return;
    }
    if (!body_.empty()) {  // came while a filter made the exchange wait
        const std::string early = std::move(body_);
        body_.clear();
        const std::string_view piece = early;
        if (!take_body({&piece, 1})) return;
    }
    if (request_complete()) {
        ask_store();
        return;
    }
    if (request().expects_continue) {
        // The body is needed before an upstream is asked, so it is for us to say so.
        if (http::FieldRef* expect = request().find(http::FieldId::kExpect)) expect->dropped = true;
        send_informational(100, "Continue", 0, [](http::HeadWriter&) {});
    }
    resume_request();
}

// False: refused, and this exchange may be gone.
bool Exchange::take_body(std::span<const std::string_view> slices) {
    for (const std::string_view s : slices) {
        if (body_.size() + s.size() > key_settings().max_request.value) {
            body_too_large();
            return false;
        }
        if (!worker_.hold_bytes(s.size())) {
            key_refused(KeyOutcome::kStoreError, Failure::kKeyBodiesHeld);
            return false;
        }
        held_bytes_ += s.size();
        body_.append(s);
        guard_->fingerprint->body(s);
    }
    return true;
}

void Exchange::body_too_large() {
    close_after();
    const std::string detail = "The body is larger than " + outrider::to_string(key_settings().max_request) +
                               ", the most that a request with an idempotency key may have here.";
    key_refused(KeyOutcome::kTooLarge, Failure::kKeyBodyTooLarge, detail);
}

void Exchange::key_refused(KeyOutcome outcome, Failure failure, std::string_view detail,
                           Duration retry_after) {
    guard_->stage = Stage::kNone;
    context_.key_outcome = outcome;
    worker_.loop().cancel(*this);
    fail(failure, detail, retry_after);
}

void Exchange::ask_store() {
    guard_->stage = Stage::kAsking;
    guard_->store->arrive(*this, *context_.key, guard_->fingerprint->finish(), route_->idempotency->policy,
                          worker_.loop().now());
}

void Exchange::on_verdict(const policy::Verdict& verdict) {
    if (guard_->stage == Stage::kLeaving) {
        if (const auto* forward = std::get_if<policy::Forward>(&verdict)) {
            guard_->owner = forward->owner;
            settle(idempotency::Released{});
            return;
        }
        guard_->stage = Stage::kNone;
        if (detached_) end_detached();
        return;
    }
    guard_->stage = Stage::kNone;
    std::visit(
        Overloaded{
            [&](const policy::Forward& forward) { own(forward); },
            [&](const policy::Replay& replay) { give_again(replay); },
            [&](const policy::Conflict& conflict) { conflicts(conflict); },
            [&](const policy::Mismatch&) { key_refused(KeyOutcome::kMismatch, Failure::kKeyReused); },
            [&](const policy::OutcomeUnknown& unknown) {
                key_refused(KeyOutcome::kUnknown, unknown.why == policy::UnknownWhy::kCut
                                                      ? Failure::kKeyUnknownCut
                                                      : Failure::kKeyUnknownLost);
            },
            [&](const policy::StoreFull& full) {
                without_store(Failure::kKeyStoreFull,
                              std::min(full.room_at - worker_.loop().now(), kFullRetryAfterMax));
            },
            [&](const policy::StoreFailed&) { without_store(Failure::kKeyStoreFailed, kConflictRetryAfter); },
            [&](const policy::Unprotected&) { without_store(Failure::kKeyStoreFailed, Duration(0)); },
            [&](const policy::Wait&) { require(false, "a store parks who has to wait"); },
        },
        verdict);
}

void Exchange::own(const policy::Forward& forward) {
    guard_->stage = Stage::kOwner;
    guard_->owner = forward.owner;
    guard_->lease_end = forward.lease_end;
    context_.key_outcome = KeyOutcome::kFirst;
    run_filters();
}

// By now another may have been told to forward: nothing of this one leaves any more.
bool Exchange::lease_over() const {
    return owns_key() && worker_.loop().now() >= guard_->lease_end;
}

void Exchange::without_store(Failure failure, Duration retry_after) {
    if (key_settings().on_store_error == config::OnStoreError::kReject) {
        key_refused(KeyOutcome::kStoreError, failure, {}, retry_after);
        return;
    }
    context_.key_outcome = KeyOutcome::kUnprotected;
    context_.flags.set(filters::Flag::kIS);
    run_filters();
}

void Exchange::conflicts(const policy::Conflict& conflict) {
    Failure failure = Failure::kKeyInFlight;
    if (conflict.why == policy::ConflictWhy::kWaitedTooLong) failure = Failure::kKeyWaitedTooLong;
    if (conflict.why == policy::ConflictWhy::kDoneNotReplayable) failure = Failure::kKeyDone;
    std::string detail;
    if (failure == Failure::kKeyDone) {
        detail = "The first request with this key was done with status " + std::to_string(conflict.status) +
                 "; its answer was not kept: it was too large, or the store had no room for it.";
    }
    key_refused(KeyOutcome::kConflict, failure, detail, kConflictRetryAfter);
}

// The recorded answer, as a new one would go: through the filters.
void Exchange::give_again(const policy::Replay& replay) {
    http::KeptHead kept;
    if (!kept.parse(replay.response->headers, replay.status)) {
        const policy::Conflict unreadable{policy::ConflictWhy::kDoneNotReplayable, replay.status};
        conflicts(unreadable);
        return;
    }
    context_.key_outcome = waited ? KeyOutcome::kWaited : KeyOutcome::kReplayed;
    context_.flags.set(filters::Flag::kIR);
    context_.response_fields.add("Idempotent-Replayed", "true");
    worker_.loop().cancel(*this);
    upstream_done_ = true;
    answer_kept(kept.head(), replay.response->body);
}

bool Exchange::has_no_body(int status) const {
    return request().method == http::Method::kHead || status == 204 || status == 304;
}

void Exchange::answer_kept(http::ResponseHead& head, std::string_view body) {
    const bool bodiless = has_no_body(head.status);
    for (http::FieldRef& f : head.all()) {
        if (f.id == http::FieldId::kContentLength && !bodiless) f.dropped = true;
        if (context_.flags.has(filters::Flag::kIR) && iequals(head.name(f), "Idempotent-Replayed"))
            f.dropped = true;
    }
    start_answer(head, bodiless ? Body::kNone : Body::kLength, body.size());
    write_body({&body, 1}, false);
    finish();  // last: this exchange may be gone
}

// ---- the answer of the first ------------------------------------------------------------------------------------------

// The upstream's final answer has begun.
void Exchange::record_head(http::ResponseHead& head) {
    for (http::FieldRef& f : head.all())
        f.dropped |= f.id == http::FieldId::kTrailer;  // those of a recorded answer are not kept
    guard_->status = head.status;
    if (head.framing == http::Framing::kLength) {
        guard_->length = head.content_length;
        if (head.content_length <= key_settings().max_response.value)
            guard_->body.reserve(head.content_length);
    }
    guard_->head = http::kept_head(head);
    if (guard_->head.size() <= key_settings().max_response.value) return;
    // Without a body its head is all of it, and waits for the record like any last byte.
    guard_->head_too_large = has_no_body(head.status);
    if (!guard_->head_too_large) stream_answer();
}

void Exchange::record_body(std::span<const std::string_view> slices) {
    if (!guard_->streaming) {
        std::size_t more = 0;
        for (const std::string_view s : slices)
            more += s.size();
        const std::size_t size = guard_->head.size() + guard_->body.size() + more;
        if (size <= key_settings().max_response.value && worker_.hold_bytes(more)) {
            held_bytes_ += more;
            for (const std::string_view s : slices)
                guard_->body.append(s);
            return;
        }
        stream_answer();
    }
    stream_body(slices);
}

// Too large to be kept: what has come so far goes out now.
void Exchange::stream_answer() {
    guard_->streaming = true;
    const std::string body = std::move(guard_->body);
    guard_->body.clear();
    worker_.give_back_bytes(body.size());
    held_bytes_ -= body.size();
    if (detached_) return;
    http::KeptHead kept;
    require(kept.parse(guard_->head, guard_->status), "a head that was just kept can be read");
    start_answer(kept.head(), guard_->length ? Body::kLength : Body::kUnknown, guard_->length.value_or(0));
    const std::string_view piece = body;
    stream_body({&piece, 1});
}

// All but the last byte.
void Exchange::stream_body(std::span<const std::string_view> slices) {
    if (detached_) return;
    for (const std::string_view s : slices) {
        if (s.empty()) continue;
        if (guard_->last) {
            const std::string_view before(&*guard_->last, 1);
            write_body({&before, 1}, false);
        }
        guard_->last = s.back();
        const std::string_view rest = s.substr(0, s.size() - 1);
        write_body({&rest, 1}, false);
    }
    if (response_blocked()) on_response_blocked();
}

// The upstream's answer is whole.
void Exchange::settle_answer(std::span<const http::Field> trailers) {
    idempotency::Answered answered;
    answered.answer.status = static_cast<std::uint16_t>(guard_->status);
    if (key_settings().record == config::RecordAnswers::kBelow500)
        answered.record = policy::RecordAnswers::kBelow500;
    if (guard_->streaming) {
        held_trailers_.clear();  // those of the request
        for (const http::Field& f : trailers)
            held_trailers_.push_back({arena_.copy(f.name), arena_.copy(f.value)});
    } else {
        if (!guard_->length) guard_->body.shrink_to_fit();  // it may stay for as long as the key's window
        guard_->record = std::make_shared<const policy::StoredResponse>(
            policy::StoredResponse{std::move(guard_->head), std::move(guard_->body)});
        if (!guard_->head_too_large) answered.answer.response = guard_->record;
    }
    settle(std::move(answered));
}

void Exchange::settle(idempotency::Report report) {
    guard_->stage = Stage::kSettling;
    worker_.loop().cancel(*this);
    guard_->store->settle(*this, *context_.key, guard_->owner, std::move(report));
}

// A failure of an exchange that owns its key. True: it is reported first, and told to the client afterwards.
bool Exchange::report_failure(Failure failure, std::string_view detail, Duration retry_after) {
    if (!guard_ || guard_->stage == Stage::kNone) return false;
    if (guard_->stage == Stage::kAsking) {  // in the route's time the store said nothing
        guard_->stage = Stage::kLeaving;
        guard_->store->leave(*this);
        return false;
    }
    if (guard_->stage != Stage::kOwner) return guard_->stage == Stage::kSettling;
    guard_->failure = failure;
    guard_->failure_detail = detail;
    guard_->retry_after = retry_after;
    guard_->body.clear();
    guard_->left ? settle(idempotency::Cut{}) : settle(idempotency::Released{});
    return detached_ || !response_started();  // else the client sees at once that it is cut
}

void Exchange::on_settled(policy::Settled, bool durable) {
    guard_->stage = Stage::kNone;
    if (!durable) context_.flags.set(filters::Flag::kIS);
    if (detached_) {
        end_detached();
        return;
    }
    if (response_finished()) return;  // a cut that waits behind others of its connection
    if (guard_->failure) {
        fail(*guard_->failure, guard_->failure_detail, guard_->retry_after);
    } else if (guard_->streaming) {
        if (guard_->last) {
            const std::string_view last(&*guard_->last, 1);
            write_body({&last, 1}, false);
        }
        finish(held_trailers_);
    } else {
        const std::shared_ptr<const policy::StoredResponse> record = guard_->record;
        http::KeptHead kept;
        require(kept.parse(record->headers, guard_->status), "a head that was just kept can be read");
        answer_kept(kept.head(), record->body);
    }
}

// Where the promise is published.
std::string_view Exchange::policy_link() const {
    const std::string& url = key_settings().policy_url;
    return url.empty() ? std::string_view("urn:outrider:docs:idempotency") : url;
}

// How much may be read of the upstream's answer at once.
std::size_t Exchange::answer_room() const {
    return detached_ || owns_key() || reads_shared() || carries() ? uv::TcpStream::kRead : response_room();
}

// ---- without its client -----------------------------------------------------------------------------------------------

// The store has a question of it open, or is owed a report; or others share the answer.
bool Exchange::goes_on() const {
    if ((leads() && seat_->absent) || carries()) return true;
    return guard_ && guard_->stage != Stage::kNone && guard_->stage != Stage::kBody;
}

// The client's connection lets go of it.
void Exchange::detach() {
    detached_ = true;
    worker_.detached(*this);
    // It may have been waiting for its client to read. How fast a shared answer is read is the collapser's to say.
    if (winner_ != nullptr && winner_->active() && !leads()) winner_->resume_response();
}

void Exchange::end_detached() {
    if (goes_on()) return;  // for another reason
    worker_.reattached(*this);
    end();
    worker_.return_exchange(this);
}

// The process ends: the store answers nothing any more.
void Exchange::drop_detached() {
    if (guard_) guard_->stage = Stage::kNone;
    clear_seat();
    clear_batch();
    end_detached();
}

void Exchange::clear_guard() {
    if (held_bytes_ != 0) worker_.give_back_bytes(held_bytes_);
    held_bytes_ = 0;
    waited = false;
    if (!guard_) return;
    *guard_ = KeyGuard();
}

}  // namespace outrider::proxy
