// A watch of a range that goes on: over disconnects, endpoints that stop, and compactions. What is delivered and what is
// guaranteed stands in watch_cursor.h, which decides; this is the shell: a connection of its own, reads through the client.
//
// A stream that is silent may be one whose server has stopped, or is cut off from the others. So after check_interval without a
// message the same endpoint is asked for a linearizable read: no answer, and the watch moves to another endpoint.
//
// Invariants
//   * on_update() comes from the loop, never from within the constructor; none after the destructor
//   * on_update() and on_trouble() may destroy the watch; the client outlives it
//   * a message larger than message_bytes_max ends the stream, with trouble
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "control/agent/client.h"
#include "control/agent/stream_reader.h"
#include "control/agent/watch_cursor.h"

namespace outrider::agent {

struct WatchOptions {
    WatchCursor::Options cursor;
    Duration check_interval = std::chrono::seconds(10);
    Duration check_timeout = std::chrono::seconds(5);  // of it, and of the reads
    // One event of etcd's 1.5 MiB and its predecessor in base64; more comes in fragments.
    std::size_t message_bytes_max = std::size_t{8} << 20;
};

class Watch final : private Timer {
  public:
    using OnUpdate = std::function<void(const WatchUpdate&)>;
    // It was interrupted, and goes on by itself.
    using OnTrouble = std::function<void(const std::string& reason)>;

    Watch(Client& client, WatchOptions options, OnUpdate on_update, OnTrouble on_trouble = {});
    ~Watch() override;

    store::Revision seen() const { return cursor_.seen(); }
    bool streaming() const { return created_; }
    bool ever_streamed() const { return ever_created_; }
    // Times a stream was opened.
    std::uint64_t streams() const { return streams_; }

  private:
    class Stream;
    friend class Stream;
    enum class Doing : std::uint8_t { kResting, kReading, kFinding, kStreaming };

    void step();
    void read();
    void on_read(const Reply<v3::RangeResponse>& reply);
    void open_stream();
    void connect(const Result<uv::SocketAddress>& address);
    void on_stream_line(std::string_view line);
    void on_stream_over(const std::string& reason);
    void check();
    void on_checked(const Reply<v3::RangeResponse>& reply);
    void drop_stream();
    // What was under way failed; another try comes. May destroy this.
    void rest(const std::string& reason);
    void went_well();
    void on_timeout(Instant now) override;

    Client& client_;
    const WatchOptions options_;
    const std::shared_ptr<const OnUpdate> on_update_;  // held while it runs: it may destroy this
    const OnTrouble on_trouble_;
    WatchCursor cursor_;
    Backoff backoff_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    Doing doing_ = Doing::kResting;
    std::size_t endpoint_ = 0;
    Stream* stream_ = nullptr;
    CallId call_ = 0;
    bool created_ = false;
    bool ever_created_ = false;
    bool first_try_ = true;  // since something went well
    std::uint64_t streams_ = 0;
};

}  // namespace outrider::agent
