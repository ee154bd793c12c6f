// One request of a client and its answer, unary or stream.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/http/server_connection.h"
#include "control/api/requests.h"
#include "control/api/responses.h"
#include "control/api/session.h"
#include "control/node/api_server.h"
#include "control/node/request.h"

namespace outrider::node {

// Of one stream: what one answer to a progress request asks, and what its end takes off, is bounded.
inline constexpr std::size_t kStreamWatchesMax = 10'000;

class ApiCall final : public http::ServerExchange, public Request {
  public:
    ApiCall(ApiServer& server, bool pages_only);
    ~ApiCall() override;

    // ---- a watch stream ----
    bool may_write() const { return !response_blocked(); }
    void on_batch(std::int64_t watch_id, store::WatchId id, const store::WatchBatch& batch);
    // Its client is slow: woken when it has read.
    void stall(store::WatchId id) { stalled_.push_back(id); }
    // The server stops: the stream ends in good order.
    void end_stream();

  private:
    // http::ServerExchange
    void on_request() override;
    void on_request_body(std::span<const std::string_view> slices) override;
    void on_request_end(std::span<const http::Field> trailers) override;
    void on_bad_request(int status, const char* reason) override;
    void on_aborted(AbortReason reason) override;
    void on_response_drained() override;
    void on_client_ended() override;

    // Request
    void on_applied(const store::Response& response) override;
    void on_readable() override;
    void on_lease(std::int64_t seconds) override;
    void on_members(raft::Refusal refusal) override;
    void on_refused(const api::Problem& problem) override;

    bool take_session();
    void send(const api::Answer& answer);
    void refuse(const api::Problem& problem);
    bool answer_page();
    std::string health() const;

    // Of its request, it holds so many bytes now. False: it was refused for it.
    bool hold(std::size_t bytes);

    // Unary calls; `request_` is what was asked.
    void run();
    void begin(store::RangeRequest& range);
    void begin(store::TxnRequest& txn);
    void begin_command(store::Command command);
    void answer_without_space();
    void answer_range();
    void answer_time_to_live(std::int64_t seconds);
    api::Status status() const;

    // api_members.cc
    void begin_member_change();

    // api_backup.cc
    void begin_hash();
    void begin_backup();
    void send_backup();

    // Streams.
    void write_line(std::string_view text);
    void next_message();
    void take_message(std::string_view message);
    void take_watch(const api::WatchCreate& create);
    void cancel_watch(std::int64_t watch_id);
    void tell_progress();
    bool told_progress(std::int64_t watch_id);
    void fail_stream(const api::Problem& problem);
    void drop_watches();

    ApiServer& server_;
    const bool pages_only_;
    api::Call call_ = api::Call::kRange;
    bool stream_ = false;
    bool input_ended_ = false;
    bool taking_ = false;  // next_message() runs
    std::uint64_t held_bytes_ = 0;
    std::string body_;
    api::SessionUse session_;
    std::optional<api::Request> request_;
    bool without_space_ = false;  // for a session's command, which may be a repeat
    api::MessageSplitter messages_;
    std::map<std::int64_t, store::WatchId> watches_;
    std::int64_t next_watch_id_ = 0;
    std::set<std::int64_t> progress_owed_;  // by these watches, before one answer tells all of them
    std::vector<store::WatchId> stalled_;
    store::LeaseId lease_;  // of the keepalive under way
    std::optional<std::uint64_t> added_member_;
    struct Backup;
    std::unique_ptr<Backup> backup_;
    const std::shared_ptr<bool> alive_ =
        std::make_shared<bool>(true);  // false: nobody waits for this call's answer
};

}  // namespace outrider::node
