// What a caller hears when no endpoint serves a call: the attempt that says most, and of a write whether it took effect.
#include "tests/agent/client_fixture.h"
#include "tests/agent/refusing_server.h"

namespace outrider::agent {
namespace {

using namespace test;

std::string closed_endpoint() {
    const int closed = http::test::listen_on_loopback();
    std::string text = uv::local_address(closed).text();
    ::close(closed);
    return text;
}

// One server beside two endpoints that refuse connections, and a client that waits for an answer for `attempt` each time.
class Refusals : public ::testing::Test {
  protected:
    void serve(std::string answer, Duration after, Duration attempt) {
        server_ = std::make_unique<RefusingServer>(std::move(answer), after);
        ClientOptions options;
        options.endpoints = {closed_endpoint(), server_->endpoint(), closed_endpoint()};
        options.attempt_timeout = attempt;
        options.backoff = {.first = 10ms, .max = 50ms};
        client_ = std::make_unique<Client>(run_.loop(), options);
    }
    void TearDown() override {
        client_.reset();
        run_.settle();
    }
    template <typename Request>
    Reply<typename Rpc<Request>::Response> call(const Request& request, Duration timeout) {
        std::optional<Reply<typename Rpc<Request>::Response>> said;
        client_->call(request, {.timeout = timeout}, [&](const auto& reply) { said = reply; });
        EXPECT_TRUE(run_.until([&] { return said.has_value(); }));
        return said.value_or(Reply<typename Rpc<Request>::Response>{});
    }
    std::string no_leader() const { return server_->endpoint() + ": etcdserver: no leader"; }

    http::test::LoopRun run_;
    std::unique_ptr<RefusingServer> server_;
    std::unique_ptr<Client> client_;
};

// Sent once more it could not be answered by the deadline, and nobody would know any more that it did not happen.
TEST_F(Refusals, AWriteThatWasRefusedIsNotMadeUnknownByOneMoreTry) {
    serve(RefusingServer::no_leader(), 500ms, 200ms);
    const auto reply = call(put("x", "y"), 900ms);
    EXPECT_EQ(reply.outcome, Outcome::kUnavailable) << reply.reason;
    EXPECT_EQ(reply.reason, no_leader());
    EXPECT_EQ(reply.endpoint, server_->endpoint());
    EXPECT_EQ(reply.code, 14);
    EXPECT_EQ(server_->requests(), 1);
}

// When the refusal comes at once, it is asked again and again until the deadline.
TEST_F(Refusals, AWriteThatIsRefusedAtOnceIsTriedAgain) {
    serve(RefusingServer::no_leader(), 0ms, 200ms);
    const auto reply = call(put("x", "y"), 500ms);
    EXPECT_EQ(reply.outcome, Outcome::kUnavailable) << reply.reason;
    EXPECT_EQ(reply.reason, no_leader());
    EXPECT_GT(server_->requests(), 1);
}

TEST_F(Refusals, AReadHearsTheRefusalAndNotWhoCouldNotBeReached) {
    serve(RefusingServer::no_leader(), 0ms, 200ms);
    for (int i = 0; i < 3; ++i)
        EXPECT_EQ(call(get("x"), 200ms).reason, no_leader());
}

// The member takes longer to say so than an attempt lasts; nobody else is there to ask.
TEST_F(Refusals, AReadWaitsForTheOnlyOneThatCouldAnswer) {
    serve(RefusingServer::no_leader(), 500ms, 200ms);
    const auto reply = call(get("x"), 1500ms);
    EXPECT_EQ(reply.outcome, Outcome::kUnavailable);
    EXPECT_EQ(reply.reason, no_leader());
}

TEST_F(Refusals, ASilentEndpointSaysMoreThanOneThatCannotBeConnectedTo) {
    serve(RefusingServer::no_leader(), 15s, 100ms);
    const auto reply = call(get("x"), 500ms);
    EXPECT_EQ(reply.reason, server_->endpoint() + ": no answer in time");
    EXPECT_TRUE(reply.endpoint.empty());
    EXPECT_EQ(call(put("x", "y"), 500ms).outcome, Outcome::kUnknown);
}

// RFC 9110 section 15.6.2: it does not know the method, so it did not do it.
TEST_F(Refusals, AServerThatDoesNotKnowTheMethodDidNotWrite) {
    serve(RefusingServer::http("501 Unsupported method", "<p>no</p>"), 0ms, 200ms);
    const auto reply = call(put("x", "y"), 2s);
    EXPECT_EQ(reply.outcome, Outcome::kRefused);
    EXPECT_EQ(reply.reason, "the endpoint answered with HTTP status 501");
    EXPECT_EQ(reply.endpoint, server_->endpoint());
}

}  // namespace
}  // namespace outrider::agent
