// An exchange among identical ones (docs/configuration.md, collapse): it leads, or waits for the leader's answer and reads it at its own
// speed. Who is what, and what is kept, is collapser.h's.
//
//     Join -> leads --head--> own answer alone, or a reader like the others
//         \-> waits --head--> reads; or its own way; or fails with the leader; or arrives again
//
// A leader whose client goes away while others want the answer is detached from its connection, and ends with the answer.
#include "base/check.h"
#include "base/http/kept_head.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

namespace outrider::proxy {

using Role = CollapseSeat::Role;

namespace {
constexpr std::size_t kPiece =
    64 * 1024;  // of a shared body, between two looks at whether the client takes it
}

void Exchange::join() {
    if (!seat_) seat_ = std::make_unique<CollapseSeat>();
    *seat_ = CollapseSeat();
    seat_->collapser = snapshot_->collapsers[route_->index];
    seat_->collapser->arrive(*this);
    if (seat_->role != Role::kWaits) {
        run_filters();
        return;
    }
    // The filters behind say it again to who goes its own way.
    if (context_.time_left) worker_.loop().schedule(*this, time_left());
}

void Exchange::count_collapsed() {
    context_.flags.set(filters::Flag::kCL);
    route_->collapsed[worker_.index()]->add();
}

// The leader's answer has begun.
void Exchange::share_head(http::ResponseHead& head, Body body) {
    const bool absent = seat_->absent;
    const Ref<SharedAnswer> answer = seat_->collapser->head_came(*this, head, body);
    if (!answer && absent) {
        stop_trying(false);
        if (detached_) end_detached();
        return;
    }
    seat_->answer = answer;
    if (!absent) start_answer(head, body, head.content_length);
    if (answer) seat_->collapser->begin_reading(answer);
}

void Exchange::begin_shared(const Ref<SharedAnswer>& answer) {
    seat_->role = Role::kReads;
    seat_->answer = answer;
    count_collapsed();
    http::KeptHead kept;
    require(kept.parse(answer->head, answer->status), "a head that was just kept can be read");
    start_answer(kept.head(), answer->framing, answer->length);
}

// As much as the client takes. Last when the answer has ended: this exchange may be gone.
void Exchange::read_shared() {
    const Ref<SharedAnswer> answer = seat_->answer;
    const SharedBody& body = answer->body;
    if (seat_->position < body.begin()) return;  // to be cut
    while (seat_->position < body.end() && !response_blocked()) {
        const std::string_view piece = body.from(seat_->position, kPiece);
        seat_->position += piece.size();
        write_body({&piece, 1}, false);
        if (seat_->position < body.end()) worker_.loop().flush();  // to learn whether it is taken
    }
    if (!answer->ended || seat_->position < body.end()) return;
    seat_->collapser->done(*this);
    std::vector<http::Field> trailers;
    for (const auto& [name, value] : answer->trailers)
        trailers.push_back({name, value});
    finish(trailers);
}

void Exchange::drained_shared() {
    const Ref<SharedAnswer> answer = seat_->answer;
    const Ref<Collapser> collapser = seat_->collapser;
    read_shared();
    if (!answer->ended) collapser->pace(*answer);
}

// It reads so slowly that what it needs is not kept any more. The client must see that the answer is cut.
void Exchange::cut_behind() {
    leave_group();
    worker_.loop().cancel(*this);
    context_.flags.set(filters::Flag::kDPE);
    abort_response();
}

void Exchange::leave_group() {
    if (seat_ && seat_->role != Role::kNone && !seat_->absent) seat_->collapser->leave(*this);
}

// Nobody wants the answer of this leader any more.
void Exchange::give_up_call() {
    seat_->role = Role::kNone;
    seat_->answer.reset();
    stop_trying(false);
    if (detached_) end_detached();
}

// A failure of an exchange that is in a group. True: there is no client to be told.
bool Exchange::group_failed(Failure failure, std::string_view detail, Duration retry_after) {
    if (!leads()) {
        leave_group();
        return false;
    }
    const bool absent = seat_->absent;
    seat_->collapser->failed(*this, failure, detail, retry_after);
    if (absent && detached_) end_detached();
    return absent;
}

// However it ended: nobody waits for it in vain.
void Exchange::clear_seat() {
    if (leads()) {
        seat_->collapser->failed(*this, Failure::kRouteTimeout, {}, {});
    } else {
        leave_group();
    }
    if (seat_) *seat_ = CollapseSeat();
}

}  // namespace outrider::proxy
