// One request to the ledger's server and its answer: what depends on the connection, on time and on Controls.
//
// Stages: the body is collected -> effect -> latency (or hanging) -> answer, at once or streamed.
#pragma once

#include <string>

#include "base/http/server_connection.h"
#include "base/timer_wheel.h"
#include "demo/ledger_api.h"

namespace outrider::demo {

class LedgerServer;

class LedgerExchange final : public http::ServerExchange, private Timer {
  public:
    explicit LedgerExchange(LedgerServer& server) : server_(server) {}

    void reset();  // for the pool
    // It was hanging and may answer now.
    void answer_now() { answer(); }

  private:
    void on_request() override;
    void on_request_body(std::span<const std::string_view> slices) override;
    void on_request_end(std::span<const http::Field> trailers) override;
    void on_bad_request(int status, const char* reason) override;
    void on_aborted(AbortReason reason) override;
    void on_response_drained() override;
    void on_timeout(Instant now) override;

    enum class Stage : std::uint8_t { kReceiving, kWaiting, kStreaming, kOver };

    void take_effect(std::span<const http::Field> trailers);
    Answer make_answer(std::span<const http::Field> trailers);
    bool prepare_stream(Answer& refused);
    Answer echo(std::span<const http::Field> trailers);
    void answer();
    void send(const Answer& answer);
    void start_stream();
    void stream();
    void log(int status) const;

    LedgerServer& server_;
    Stage stage_ = Stage::kReceiving;
    bool cut_ = false;  // the failure drawn is a cut connection
    bool streamed_ = false;
    bool chunked_ = false;
    std::uint64_t stream_left_ = 0;
    std::string body_;
    Answer answer_;
};

}  // namespace outrider::demo
