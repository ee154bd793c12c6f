#include "demo/ledger_exchange.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "demo/ledger_server.h"

namespace outrider::demo {

namespace {
using Json = nlohmann::ordered_json;

constexpr std::size_t kStreamPiece = 64 * 1024;
constexpr std::size_t kStreamATurn =
    512 * 1024;  // then others get their turn; also what may be kept for a slow client
constexpr std::uint64_t kStreamMax = std::uint64_t{1} << 40;
constexpr std::size_t kBodyKept = 4096;  // a pooled exchange keeps no larger buffer

// Lines of 64 bytes, so that a lost or doubled piece can be seen.
const std::array<char, kStreamPiece>& stream_piece() {
    static const auto kPiece = [] {
        std::array<char, kStreamPiece> out{};
        constexpr std::string_view kLine =
            "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n";
        static_assert(kLine.size() == 64);
        for (std::size_t i = 0; i < out.size(); ++i)
            out[i] = kLine[i % kLine.size()];
        return out;
    }();
    return kPiece;
}

bool is_echo(std::string_view path) {
    return path == "/echo" || path.starts_with("/echo/");
}
}  // namespace

void LedgerExchange::reset() {
    server_.loop_.cancel(*this);
    recycle();
    stage_ = Stage::kReceiving;
    cut_ = streamed_ = chunked_ = false;
    stream_left_ = 0;
    body_.clear();
    if (body_.capacity() > kBodyKept) body_.shrink_to_fit();
    answer_ = Answer();
}

// ---- the request ------------------------------------------------------------------------------------------

void LedgerExchange::on_request() {
    if (request_complete()) {
        take_effect({});
        return;
    }
    if (request().expects_continue && !client_is_http10()) {
        send_informational(100, http::reason_phrase(100), 0, [](http::HeadWriter&) {});
    }
}

void LedgerExchange::on_request_body(std::span<const std::string_view> slices) {
    for (const std::string_view slice : slices)
        body_.append(slice);  // the parser holds the limit
}

void LedgerExchange::on_request_end(std::span<const http::Field> trailers) {
    take_effect(trailers);
}

void LedgerExchange::on_bad_request(int status, const char* reason) {
    send(problem(status, reason));
}

void LedgerExchange::on_aborted(AbortReason) {
    server_.loop_.cancel(*this);
    server_.hanging_.erase(this);
    stage_ = Stage::kOver;
}

void LedgerExchange::take_effect(std::span<const http::Field> trailers) {
    const Controls controls = server_.api_.controls();
    const std::string_view path = request().path();
    stage_ = Stage::kWaiting;
    if (LedgerApi::is_management(path)) {
        answer_ = make_answer(trailers);
        if (controls.hang && !server_.api_.controls().hang) server_.release_hanging();
        answer();
        return;
    }
    const bool fails = server_.draws_failure();
    if (!fails || controls.fail_after_effect) answer_ = make_answer(trailers);
    if (fails) {
        streamed_ = false;
        cut_ = controls.fail_status == 0;
        if (!cut_) answer_ = problem(controls.fail_status, "a failure as ordered by /control");
    }
    if (controls.hang) {
        server_.hanging_.insert(this);
    } else if (controls.latency_ms != 0) {
        server_.loop_.schedule(*this, std::chrono::milliseconds(controls.latency_ms));
    } else {
        answer();
    }
}

Answer LedgerExchange::make_answer(std::span<const http::Field> trailers) {
    const std::string_view path = request().path();
    if (is_echo(path)) return echo(trailers);
    Answer refused;
    if (prepare_stream(refused)) return refused;
    return server_.api_.answer(
        {request().method, path, request().query(), request().value_of(http::FieldId::kContentType), body_});
}

// True when the path is a stream's; then `refused` says whether it can be had.
bool LedgerExchange::prepare_stream(Answer& refused) {
    const std::string_view path = request().path();
    constexpr std::string_view kBytes = "/bytes/";
    constexpr std::string_view kChunked = "/chunked/";
    chunked_ = path.starts_with(kChunked);
    if (!chunked_ && !path.starts_with(kBytes)) return false;
    const http::Method method = request().method;
    if (method != http::Method::kGet && method != http::Method::kHead) {
        refused = problem(405, "this resource allows GET, HEAD");
        refused.allow = "GET, HEAD";
    } else if (!read_number(path.substr(chunked_ ? kChunked.size() : kBytes.size()), stream_left_) ||
               stream_left_ > kStreamMax) {
        refused = problem(404, "a size is a number of bytes up to 2^40");
    } else {
        streamed_ = true;
    }
    return true;
}

Answer LedgerExchange::echo(std::span<const http::Field> trailers) {
    Json fields = Json::array();
    for (const http::FieldRef& field : request().all()) {
        fields.push_back({request().name(field), request().value(field)});
    }
    Json out = {{"method", request().method_text()},
                {"target", request().target()},
                {"version", request().version_minor == 0 ? "1.0" : "1.1"},
                {"peer", connection().peer().text()},
                {"headers", fields},
                {"body_bytes", body_.size()},
                {"body", body_}};
    if (!trailers.empty()) {
        Json& list = out["trailers"] = Json::array();
        for (const http::Field& field : trailers)
            list.push_back({field.name, field.value});
    }
    Answer answer;
    answer.body = out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
    return answer;
}

// ---- the answer -------------------------------------------------------------------------------------------

void LedgerExchange::on_timeout(Instant) {
    if (stage_ == Stage::kStreaming) {
        stream();
    } else {
        answer();
    }
}

void LedgerExchange::answer() {
    if (cut_) {
        stage_ = Stage::kOver;
        log(0);
        abort_response();
    } else if (streamed_) {
        start_stream();
    } else {
        send(answer_);
    }
}

void LedgerExchange::send(const Answer& answer) {
    stage_ = Stage::kOver;
    log(answer.status);
    if (response_started()) {  // a body that broke off after an answer began
        abort_response();
        return;
    }
    const std::size_t bound = 200 + answer.content_type.size() + answer.location.size() + answer.allow.size();
    start_response(answer.status, http::reason_phrase(answer.status), Body::kLength, answer.body.size(),
                   bound, [&](http::HeadWriter& head) {
                       head.field("Date", server_.date());
                       head.field("Content-Type", answer.content_type);
                       if (!answer.location.empty()) head.field("Location", answer.location);
                       if (!answer.allow.empty()) head.field("Allow", answer.allow);
                   });
    const std::string_view body = answer.body;
    write_body({&body, 1}, false);
    finish();  // this exchange may be another's from here on
}

void LedgerExchange::start_stream() {
    stage_ = Stage::kStreaming;
    log(200);
    start_response(200, "OK", chunked_ ? Body::kUnknown : Body::kLength, stream_left_, 200,
                   [&](http::HeadWriter& head) {
                       head.field("Date", server_.date());
                       head.field("Content-Type", "application/octet-stream");
                   });
    if (request().method == http::Method::kHead) stream_left_ = 0;
    stream();
}

void LedgerExchange::stream() {
    // Whether the client keeps up is known only after a turn's output was handed to the kernel, so each turn has its bound.
    std::size_t budget = kStreamATurn;
    while (stream_left_ != 0 && budget != 0 && !response_blocked()) {
        const std::size_t size =
            static_cast<std::size_t>(std::min<std::uint64_t>(stream_left_, kStreamPiece));
        const std::string_view piece(stream_piece().data(), size);
        write_body({&piece, 1}, true);
        stream_left_ -= size;
        budget -= kStreamPiece;
    }
    if (stream_left_ == 0) {
        stage_ = Stage::kOver;
        finish();
    } else if (!response_blocked()) {
        server_.loop_.schedule(*this, Duration(0));
    }
}

void LedgerExchange::on_response_drained() {
    if (stage_ == Stage::kStreaming) stream();
}

void LedgerExchange::log(int status) const {
    if (!server_.options_.log_requests) return;
    log_info("{} {} {}", request().method_text(), request().target(), status);
}

}  // namespace outrider::demo
