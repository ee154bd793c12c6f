// A pipelined connection with its rules over real sockets, against a server that the test plays. Every body names the request it
// answers, so that an answer that went astray is seen.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/pipelined_channel.h"
#include "tests/base_uv/loop_fixture.h"

namespace outrider::proxy::test {
using namespace std::chrono_literals;
using http::test::LoopRun;
using http::test::Peer;

// One request and what became of it.
class Rider final : public http::ClientHandler {
  public:
    std::string name;
    http::PipelinedConnection::Id id = 0;
    std::string heard;
    std::string body;
    http::ClientFailure failure;
    std::function<void()> at_head, at_end;

    void on_connected() override { FAIL() << "a rider does not wait for its connection"; }
    void on_response_head(http::ResponseHead& head) override {
        heard += std::to_string(head.status) + ";";
        if (at_head) at_head();
    }
    void on_response_body(std::span<const std::string_view> slices) override {
        for (const std::string_view s : slices)
            body += s;
    }
    void on_response_end(std::span<const http::Field>) override {
        heard += "end;";
        if (at_end) at_end();
    }
    void on_failed(const http::ClientFailure& f) override {
        failure = f;
        heard += f.returned                                   ? "returned;"
                 : f.error == http::ClientError::kIncomplete  ? "incomplete;"
                 : f.error == http::ClientError::kProtocol    ? "protocol;"
                 : f.error == http::ClientError::kReadTimeout ? "timeout;"
                                                              : "failed;";
    }
    bool over() const { return heard.ends_with("end;") || heard.ends_with("returned;") || failed(); }
    bool failed() const {
        return heard.ends_with("incomplete;") || heard.ends_with("protocol;") ||
               heard.ends_with("timeout;") || heard.ends_with("failed;");
    }
};

class PipelinedChannelTest : public testing::Test, protected PipelinedChannelOwner {
  protected:
    PipelinedChannelTest() : listening_(http::test::listen_on_loopback()) {}
    ~PipelinedChannelTest() override {
        close_channel();
        ::close(listening_);
    }

    void open(http::PipelinedConnection::Timeouts timeouts = {},
              policy::Channel::Start start = policy::Channel::Start::kTogether) {
        close_channel();
        gone_ = false;
        end_.reset();
        channel_ = new PipelinedChannel(run_.loop(), *this, limits_, scratch_,
                                        {.depth = 64, .stall_timeout = 1s}, start, 0);
        run_.in_event([&] { channel_->open(uv::local_address(listening_), timeouts); });
        ASSERT_TRUE(run_.until([&] { return opened_; }));
        server_ = std::make_unique<Peer>(run_.loop(), ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC));
        opened_ = false;
    }
    void close_channel() {
        if (channel_ != nullptr && !gone_) run_.in_event([&] { channel_->give_up(); });
        EXPECT_TRUE(run_.until([&] { return channel_ == nullptr; }));
        server_.reset();
        riders_.clear();
    }
    // To be called inside an event.
    Rider& ask(const std::string& name, bool head = false) {
        riders_.push_back(std::make_unique<Rider>());
        Rider& rider = *riders_.back();
        rider.name = name;
        EXPECT_EQ(channel_->refusal(run_.loop().now()), policy::Channel::Refusal::kNone);
        rider.id = channel_->join(rider, head, run_.loop().now());
        channel_->outgoing() += (head ? "HEAD /" : "GET /") + name + " HTTP/1.1\r\nHost: a\r\n\r\n";
        channel_->request_written();
        return rider;
    }
    void ask_many(int count) {
        run_.in_event([&] {
            for (int i = 0; i < count; ++i)
                ask("r" + std::to_string(i));
        });
        EXPECT_TRUE(run_.until([&] { return server_->got("/r" + std::to_string(count - 1) + " "); }));
    }
    static std::string answer(const std::string& name, const std::string& fields = "") {
        return "HTTP/1.1 200 OK\r\n" + fields + "Content-Length: " + std::to_string(name.size()) +
               "\r\n\r\n" + name;
    }
    Rider& rider(std::size_t i) { return *riders_[i]; }
    bool all_over() const {
        return std::all_of(riders_.begin(), riders_.end(), [](const auto& r) { return r->over(); });
    }
    // No answer is another's, and each request has one fate.
    void expect_nothing_astray() const {
        for (const auto& r : riders_) {
            if (r->heard.find("end;") != std::string::npos) {
                EXPECT_EQ(r->body, r->name);
            }
            if (r->heard == "returned;") {
                EXPECT_EQ(r->body, "");
            }
            EXPECT_EQ(r->name.compare(0, r->body.size(), r->body), 0) << r->name << " got " << r->body;
        }
    }

    void on_channel_open(PipelinedChannel&) override { opened_ = true; }
    void on_channel_answered(PipelinedChannel&, bool counts) override { counted_ += counts ? 1 : 0; }
    void on_channel_gone(PipelinedChannel& channel, bool start_alone) override {
        EXPECT_FALSE(gone_) << "told once";
        gone_ = true;
        start_alone_ = start_alone;
        end_ = channel.line().ended();
        unanswered_ = channel.line().unanswered();
    }
    void on_channel_closed(PipelinedChannel& channel) override {
        delete &channel;
        channel_ = nullptr;
    }

    LoopRun run_;
    http::ParserLimits limits_;
    http::ParserScratch scratch_;
    int listening_;
    std::unique_ptr<Peer> server_;
    PipelinedChannel* channel_ = nullptr;
    std::vector<std::unique_ptr<Rider>> riders_;
    bool opened_ = false;
    bool gone_ = false;
    bool start_alone_ = false;
    std::optional<policy::ChannelEnd> end_;
    std::uint64_t unanswered_ = 0;
    int counted_ = 0;
};

}  // namespace outrider::proxy::test
