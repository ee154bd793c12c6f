#include "control/agent/watch.h"

#include "base/http/client_connection.h"
#include "control/api/errors.h"

namespace outrider::agent {
namespace {

constexpr std::size_t kRefusalBytesMax = 64 * 1024;

}  // namespace

// One stream on a connection of its own. It belongs to the connection, which outlives the watch by a turn.
class Watch::Stream final : public http::ClientOwner, public http::ClientHandler {
  public:
    explicit Stream(Watch& watch) : watch_(&watch), reader_(watch.options_.message_bytes_max) {}

    void open(const uv::SocketAddress& to, Duration connect_timeout, std::string request) {
        request_ = std::move(request);
        connection_ = new http::ClientConnection(watch_->client_.loop(), *this, limits_, scratch_);
        connection_->bind(*this, {});
        connection_->open(to, connect_timeout);
    }
    // The watch is done with it.
    void abandon() {
        watch_ = nullptr;
        if (!gone_) connection_->abandon();
    }

  private:
    void on_connected() override {
        connection_->write_copy(request_);
        connection_->request_finished();
        connection_->keep_alive();
    }
    void on_response_head(http::ResponseHead& head) override {
        if (head.status >= 200) status_ = head.status;
    }
    void on_response_body(std::span<const std::string_view> slices) override {
        for (const std::string_view s : slices) {
            if (watch_ == nullptr) return;
            if (status_ == 200) {
                take(s);
            } else if (refusal_.size() + s.size() <= kRefusalBytesMax) {
                refusal_.append(s);
            }
        }
    }
    void take(std::string_view bytes) {
        reader_.add(bytes);
        while (watch_ != nullptr) {
            const auto line = reader_.next();
            if (!line) {
                over(line.error());
                return;
            }
            if (!*line) return;
            watch_->on_stream_line(**line);  // may destroy the watch, which abandons this first
        }
    }
    void on_response_end(std::span<const http::Field>) override {
        if (watch_ == nullptr) return;
        over(status_ == 200 ? "the server ended the stream" : refusal_from(status_, refusal_).message());
    }
    void on_failed(const http::ClientFailure& failure) override {
        if (watch_ != nullptr) over(failure.reason);
    }
    void over(const std::string& reason) { watch_->on_stream_over(reason); }

    void on_connection_idle(http::ClientConnection& connection) override { connection.abandon(); }
    void on_connection_gone(http::ClientConnection&) override { gone_ = true; }
    void on_connection_closed(http::ClientConnection& connection) override {
        delete &connection;
        delete this;
    }

    Watch* watch_;
    StreamReader reader_;
    http::ParserLimits limits_;
    http::ParserScratch scratch_;
    http::ClientConnection* connection_ = nullptr;
    std::string request_;
    std::string refusal_;
    int status_ = 0;
    bool gone_ = false;
};

Watch::Watch(Client& client, WatchOptions options, OnUpdate on_update, OnTrouble on_trouble)
    : client_(client),
      options_(std::move(options)),
      on_update_(std::make_shared<const OnUpdate>(std::move(on_update))),
      on_trouble_(std::move(on_trouble)),
      cursor_(options_.cursor),
      backoff_(client.options().backoff) {
    client_.loop().schedule(*this, Duration(0));
}

Watch::~Watch() {
    alive_.reset();
    if (call_ != 0) client_.cancel(call_);
    drop_stream();
}

void Watch::step() {
    if (cursor_.want() == WatchCursor::Want::kWatch) {
        open_stream();
    } else {
        read();
    }
}

void Watch::on_timeout(Instant) {
    const uv::Loop::Event event(client_.loop());
    switch (doing_) {
        case Doing::kResting:
            step();
            break;
        case Doing::kStreaming:
            check();
            break;
        case Doing::kReading:
        case Doing::kFinding:
            break;
    }
}

void Watch::went_well() {
    first_try_ = true;
    backoff_.reset();
}

// The first failure after something went well is followed by a try at once: at another endpoint.
void Watch::rest(const std::string& reason) {
    drop_stream();
    cursor_.on_disconnected();
    doing_ = Doing::kResting;
    const Duration wait = first_try_ ? Duration(0) : backoff_.next(client_.choice().random());
    first_try_ = false;
    client_.loop().schedule(*this, wait);
    if (on_trouble_) on_trouble_(reason);
}

// ---- reading ----------------------------------------------------------------------------------------------------------

void Watch::read() {
    doing_ = Doing::kReading;
    call_ = client_.call(cursor_.read_request(), {.timeout = options_.check_timeout},
                         [this](const Reply<v3::RangeResponse>& reply) {
                             call_ = 0;
                             on_read(reply);
                         });
}

void Watch::on_read(const Reply<v3::RangeResponse>& reply) {
    if (reply.outcome == Outcome::kRefused &&
        reply.reason == api::problem_of(store::Status::kCompacted).text) {
        cursor_.on_read_compacted();  // a page came too late: from the beginning
        rest(reply.reason);
        return;
    }
    if (!reply.ok()) {
        rest(reply.reason);
        return;
    }
    const std::weak_ptr<bool> alive = alive_;
    const auto taken =
        cursor_.on_read(reply.body, [call = on_update_](const WatchUpdate& update) { (*call)(update); });
    if (alive.expired()) return;
    if (!taken) {
        rest(reply.endpoint + ": " + taken.error());
        return;
    }
    step();
}

// ---- the stream -------------------------------------------------------------------------------------------------------

void Watch::open_stream() {
    const Instant now = client_.loop().now();
    const EndpointChoice::Pick pick = client_.choice().pick(now);
    if (pick.not_before > now) {
        doing_ = Doing::kResting;
        client_.loop().schedule(*this, pick.not_before - now);
        return;
    }
    doing_ = Doing::kFinding;
    endpoint_ = pick.index;
    client_.find_address(endpoint_,
                         [this, alive = std::weak_ptr<bool>(alive_)](const Result<uv::SocketAddress>& found) {
                             if (alive.expired()) return;
                             const uv::Loop::Event event(client_.loop());
                             connect(found);
                         });
}

void Watch::connect(const Result<uv::SocketAddress>& address) {
    if (!address) {
        client_.choice().failed(endpoint_, client_.loop().now());
        rest(address.error());
        return;
    }
    doing_ = Doing::kStreaming;
    ++streams_;
    const std::string body = to_json(cursor_.watch_request());
    std::string request =
        std::string("POST ") + kWatchPath + " HTTP/1.1\r\nHost: " + client_.options().endpoints[endpoint_] +
        "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
        body;
    stream_ = new Stream(*this);
    stream_->open(*address, client_.options().connect_timeout, std::move(request));
    client_.loop().schedule(*this, options_.check_interval);
}

void Watch::drop_stream() {
    created_ = false;
    if (Stream* stream = std::exchange(stream_, nullptr)) stream->abandon();
    if (call_ != 0) client_.cancel(std::exchange(call_, 0));
    client_.loop().cancel(*this);
}

void Watch::on_stream_over(const std::string& reason) {
    client_.choice().failed(endpoint_, client_.loop().now());
    rest(client_.options().endpoints[endpoint_] + ": " + reason);
}

void Watch::on_stream_line(std::string_view text) {
    v3::WatchLine line;
    if (!from_json(text, line) || (!line.has_result() && !line.has_error())) {
        on_stream_over("a message of the stream is not the API's");
        return;
    }
    if (line.has_error()) {
        on_stream_over(line.error().message());
        return;
    }
    if (call_ == 0) client_.loop().schedule(*this, options_.check_interval);
    const std::weak_ptr<bool> alive = alive_;
    const auto taken =
        cursor_.on_message(line.result(), [this, call = on_update_](const WatchUpdate& update) {
            went_well();
            (*call)(update);
        });
    if (alive.expired()) return;
    if (!taken) {
        on_stream_over(taken.error());
        return;
    }
    created_ |= line.result().created();
    ever_created_ |= created_;
    if (cursor_.want() == WatchCursor::Want::kWatch) return;
    drop_stream();  // compacted: the range is read anew
    step();
}

// ---- is it still there? -------------------------------------------------------------------------------------------------

void Watch::check() {
    v3::RangeRequest request;
    request.set_key(options_.cursor.range.key);
    request.set_count_only(true);
    call_ =
        client_.call(request, {.timeout = options_.check_timeout, .lane = Lane::kMain, .endpoint = endpoint_},
                     [this](const Reply<v3::RangeResponse>& reply) {
                         call_ = 0;
                         on_checked(reply);
                     });
}

void Watch::on_checked(const Reply<v3::RangeResponse>& reply) {
    if (!reply.ok() || !created_) {
        on_stream_over(reply.ok() ? "the watch was not answered" : reply.reason);
        return;
    }
    went_well();
    client_.loop().schedule(*this, options_.check_interval);
}

}  // namespace outrider::agent
