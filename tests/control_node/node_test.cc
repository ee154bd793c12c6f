// One node among peers that the test plays, over real sockets: what a node that has lost its data, or may have, says to whom.
#include "control/node/node.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <sstream>
#include <thread>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <spdlog/sinks/ostream_sink.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/wal/posix_files.h"
#include "control/node/durable_file.h"
#include "control/node/frame.h"
#include "control/node/identity.h"

namespace outrider::node {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kTheirLog = 77;

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in out{};
    out.sin_family = AF_INET;
    out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    out.sin_port = htons(port);
    return out;
}

// The other end of a connection: frames out and in.
class Peer {
  public:
    explicit Peer(int fd) : fd_(fd) {
        const timeval patience{30, 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    }
    ~Peer() { ::close(fd_); }
    Peer(const Peer&) = delete;
    Peer& operator=(const Peer&) = delete;

    static std::unique_ptr<Peer> dial(std::uint16_t port) {
        auto peer = std::make_unique<Peer>(::socket(AF_INET, SOCK_STREAM, 0));
        const sockaddr_in to = loopback(port);
        EXPECT_EQ(::connect(peer->fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
        return peer;
    }

    void send(const proto::Frame& frame) {
        std::string bytes;
        append_frame(frame.SerializeAsString(), bytes);
        EXPECT_EQ(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
    }
    // The next that is no ping; an empty frame at the end of the connection, or when nothing comes.
    proto::Frame receive() {
        for (;;) {
            proto::Frame frame;
            const auto payload = reader_.next();
            EXPECT_TRUE(payload.ok());
            if (*payload) {
                EXPECT_TRUE(frame.ParseFromArray((*payload)->data(), static_cast<int>((*payload)->size())));
                if (!frame.has_ping()) return frame;
                continue;
            }
            bytes_.resize(4096);
            const ssize_t got = ::recv(fd_, bytes_.data(), bytes_.size(), 0);
            if (got <= 0) return frame;
            bytes_.resize(static_cast<std::size_t>(got));
            reader_.add(bytes_);
        }
    }

  private:
    int fd_;
    std::string bytes_;
    FrameReader reader_;
};

// Where the node finds a peer. Nobody answers there until the test accepts.
class Listener {
  public:
    Listener() : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
        sockaddr_in at = loopback(0);
        EXPECT_EQ(::bind(fd_, reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
        EXPECT_EQ(::listen(fd_, 8), 0);
        socklen_t size = sizeof at;
        EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &size), 0);
        port_ = ntohs(at.sin_port);
    }
    ~Listener() { ::close(fd_); }
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    std::uint16_t port() const { return port_; }
    std::unique_ptr<Peer> accept() const { return std::make_unique<Peer>(::accept(fd_, nullptr, nullptr)); }

  private:
    int fd_;
    std::uint16_t port_ = 0;
};

// A client's wish for a session.
class Opening final : public Request {
  public:
    void on_applied(const store::Response&) override {}
    void on_readable() override {}
    void on_lease(std::int64_t) override {}
    void on_members(raft::Refusal) override {}
    void on_refused(const api::Problem& problem) override {
        code = problem.code;
        refused_.set_value(std::string(problem.text));
    }
    std::string refusal() {
        std::future<std::string> text = refused_.get_future();
        return text.wait_for(30s) == std::future_status::ready ? text.get() : "it was not refused";
    }
    api::Code code{};

  private:
    std::promise<std::string> refused_;
};

// The warnings from now on.
class Logged {
  public:
    Logged() : sink_(std::make_shared<spdlog::sinks::ostream_sink_mt>(text_)) {
        sink_->set_level(spdlog::level::warn);
        spdlog::default_logger()->sinks().push_back(sink_);
    }
    ~Logged() { spdlog::default_logger()->sinks().pop_back(); }
    Logged(const Logged&) = delete;
    Logged& operator=(const Logged&) = delete;

    // The node does not run.
    std::string all() const { return text_.str(); }
    std::size_t times(const std::string& what) const {
        const std::string text = all();
        std::size_t out = 0;
        for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
            ++out;
        return out;
    }

  private:
    std::ostringstream text_;
    std::shared_ptr<spdlog::sinks::ostream_sink_mt> sink_;
};

// Node a of three. b and c are the test's.
class NodeAmongPeers : public testing::Test {
  protected:
    NodeAmongPeers() {
        std::string name = (std::filesystem::temp_directory_path() / "node-test-XXXXXX").string();
        directory_ = ::mkdtemp(name.data());
        settings_.name = "a";
        settings_.data = directory_ + "/data";
        settings_.peer_listen = {"127.0.0.1", 0};
        settings_.peers = {
            {"a", {"127.0.0.1", 1}}, {"b", {"127.0.0.1", b_.port()}}, {"c", {"127.0.0.1", c_.port()}}};
        settings_.election_timeout = 10s;  // nobody gives up waiting for an answer, or asks for votes
        identity_ = found_identity(settings_);
    }
    ~NodeAmongPeers() override {
        stop();
        std::filesystem::remove_all(directory_);
    }

    void start() {
        auto storage = Storage::open(wal::posix_files(), settings_.data, 1 << 20);
        ASSERT_TRUE(storage) << storage.error();
        if (!(*storage)->found().state.identity) {
            ASSERT_TRUE((*storage)->begin(identity_));
        }
        loop_ = std::make_unique<uv::Loop>();
        node_ = std::make_unique<Node>(
            *loop_, settings_, std::move(*storage), NodeMetrics{},
            [this](Node::End end, const std::string& reason) {
                fatal_.set_value((end == Node::End::kForGood ? "for good: " : "") + reason);
            });
        ASSERT_TRUE(node_->start("127.0.0.1:1"));
        port_ = node_->peers().port();
        thread_ = std::thread([this] { loop_->run(); });
    }
    // Why it ended by itself.
    std::string reason_of_end() {
        std::future<std::string> reason = fatal_.get_future();
        return reason.wait_for(30s) == std::future_status::ready ? reason.get() : "it did not end";
    }
    void stop() {
        if (node_ == nullptr) return;
        loop_->post([this] { node_->close([this] { loop_->after(1ms, [this] { loop_->stop(); }); }); });
        thread_.join();
        node_.reset();
        loop_.reset();
    }

    proto::Frame hello(const std::string& name, std::uint64_t log = kTheirLog) const {
        proto::Frame out;
        proto::Hello& hello = *out.mutable_hello();
        hello.set_protocol(kPeerProtocol);
        hello.set_cluster_id(identity_.cluster_id);
        hello.set_node_id(node_id_of(identity_.cluster_id, name).value);
        hello.set_name(name);
        hello.set_log_id(log);
        hello.set_knows(kOwnKnowledge);
        return out;
    }
    // Of a version that knows no sessions.
    proto::Frame hello_of_before(const std::string& name, std::uint64_t log = kTheirLog) const {
        proto::Frame out = hello(name, log);
        out.mutable_hello()->clear_knows();
        return out;
    }
    static proto::Frame ask_for_vote(std::uint64_t term) {
        proto::Frame out;
        out.mutable_raft()->set_term(term);
        // Else it would wait for an election timeout: it cannot know that it has promised nothing to a leader.
        out.mutable_raft()->mutable_vote_request()->set_transfer(true);
        return out;
    }
    static proto::Frame ask_for_lease(std::uint64_t sequence) {
        proto::Frame out;
        out.mutable_lease_ask()->set_sequence(sequence);
        return out;
    }
    static proto::Frame rejected(proto::Reject::Cause cause) {
        proto::Frame out;
        out.mutable_reject()->set_reason("because");
        out.mutable_reject()->set_cause(cause);
        return out;
    }
    std::unique_ptr<Peer> dialled_by(const std::string& name, std::uint64_t log = kTheirLog) {
        auto peer = Peer::dial(port_);
        peer->send(hello(name, log));
        return peer;
    }

    // By the leader b: entry `index` makes these the members. Committed up to `commit`.
    void send_members(Peer& b, std::uint64_t index, const std::vector<std::string>& names,
                      std::uint64_t commit) {
        raft::Configuration members = *identity_.founders;
        for (const std::string& name : names)
            members.members.push_back({node_id_of(identity_.cluster_id, name), false, name + "=127.0.0.1:1"});
        std::sort(members.members.begin(), members.members.end(),
                  [](const raft::Member& x, const raft::Member& y) { return x.id < y.id; });
        proto::Frame out;
        out.mutable_raft()->set_term(1);
        proto::AppendRequest& append = *out.mutable_raft()->mutable_append_request();
        append.set_prev_index(index - 1);
        append.set_prev_term(index == 1 ? 0 : 1);
        append.set_commit(commit);
        proto::Entry& entry = *append.add_entries();
        entry.set_term(1);
        entry.set_index(index);
        entry.set_type(static_cast<std::uint32_t>(raft::EntryType::kConfiguration));
        to_proto(members, *entry.mutable_configuration());
        b.send(out);
    }
    // And waits for the acknowledgement.
    void make_members(Peer& b, std::uint64_t index, const std::vector<std::string>& names,
                      std::uint64_t commit) {
        send_members(b, index, names, commit);
        for (proto::Frame answer = b.receive();; answer = b.receive()) {
            ASSERT_TRUE(answer.has_raft());
            if (!answer.raft().has_append_response()) continue;
            ASSERT_FALSE(answer.raft().append_response().rejected());
            if (answer.raft().append_response().index() >= index) return;
        }
    }
    // As the file `peers` has it now; 0: not at all.
    std::uint64_t kept(const std::string& name) const {
        const auto bytes = read_file(wal::posix_files(), settings_.data + "/peers", kKnownLogsBytesMax);
        if (!bytes) return 0;
        const auto logs = parse_known_logs(*bytes);
        EXPECT_TRUE(logs) << logs.error();
        return logs->of(node_id_of(identity_.cluster_id, name));
    }
    void open_session(Opening& opening) {
        loop_->post([this, &opening] { node_->propose(opening, {{}, 0, store::SessionOpenRequest{}}); });
    }
    // Until its leader has the command.
    static bool forwarded(Peer& leader) {
        for (proto::Frame frame = leader.receive(); frame.body_case() != proto::Frame::BODY_NOT_SET;
             frame = leader.receive()) {
            if (frame.has_forward()) return true;
        }
        return false;
    }
    void hear(Peer& peer) {
        peer.send(ask_for_lease(7));
        EXPECT_EQ(peer.receive().lease_tell().sequence(), 7U);
    }

    Listener b_;
    Listener c_;
    std::string directory_;
    config::ControlSettings settings_;
    Identity identity_;
    std::unique_ptr<uv::Loop> loop_;
    std::unique_ptr<Node> node_;
    std::uint16_t port_ = 0;
    std::promise<std::string> fatal_;
    std::thread thread_;
};

TEST_F(NodeAmongPeers, AFounderVotesWhenAllOthersHaveBeenAsked) {
    start();
    const auto b = dialled_by("b");
    EXPECT_TRUE(b->receive().has_hello());
    b->send(ask_for_vote(5));
    b->send(ask_for_lease(1));
    EXPECT_TRUE(b->receive().has_lease_tell());  // so the vote was asked for before c was heard
    const auto c = c_.accept();
    EXPECT_TRUE(c->receive().has_hello());
    c->send(hello("c"));
    c->send(ask_for_lease(2));
    EXPECT_TRUE(c->receive().has_lease_tell());
    b->send(ask_for_vote(6));
    const proto::Frame vote = b->receive();
    ASSERT_TRUE(vote.raft().has_vote_response());
    EXPECT_EQ(vote.raft().vote_response().asked(), 6U);
    EXPECT_TRUE(vote.raft().vote_response().granted());
}

TEST_F(NodeAmongPeers, AFounderEndsWithoutAVoteWhenAnotherLogOfItIsKnown) {
    start();
    const auto b = dialled_by("b");
    EXPECT_TRUE(b->receive().has_hello());
    b->send(ask_for_vote(5));
    b->send(ask_for_lease(1));
    EXPECT_TRUE(b->receive().has_lease_tell());
    const auto c = c_.accept();
    EXPECT_TRUE(c->receive().has_hello());
    c->send(rejected(proto::Reject::LOST_LOG));
    EXPECT_EQ(reason_of_end(), "for good: c refuses this node: because");
    stop();
    EXPECT_FALSE(b->receive().has_raft());
}

TEST_F(NodeAmongPeers, ARejectBehindTheGreetingIsHeardToo) {
    start();
    const auto b = dialled_by("b");
    EXPECT_TRUE(b->receive().has_hello());
    b->send(rejected(proto::Reject::LOST_LOG));
    EXPECT_EQ(reason_of_end(), "for good: b refuses this node: because");
}

TEST_F(NodeAmongPeers, AStrangerCannotEndIt) {
    start();
    {
        const auto stranger = Peer::dial(port_);
        stranger->send(rejected(proto::Reject::LOST_LOG));
        EXPECT_EQ(stranger->receive().body_case(), proto::Frame::BODY_NOT_SET);
        const auto no_member = dialled_by("z");
        EXPECT_TRUE(no_member->receive().has_hello());
        no_member->send(rejected(proto::Reject::LOST_LOG));
        EXPECT_EQ(no_member->receive().body_case(), proto::Frame::BODY_NOT_SET);
    }
    const auto b = dialled_by("b");
    EXPECT_TRUE(b->receive().has_hello());
}

// Anybody who reaches the port can say that he is b, and need not know b's log.
TEST_F(NodeAmongPeers, WhoDialsAndTellsNoLogCannotEndIt) {
    start();
    auto reason = fatal_.get_future();
    {
        const auto b = dialled_by("b");
        EXPECT_TRUE(b->receive().has_hello());
    }
    for (const std::string name : {"b", "c"}) {  // c was not met before
        const auto untold = dialled_by(name, 0);
        EXPECT_TRUE(untold->receive().has_hello());
        untold->send(rejected(proto::Reject::LOST_LOG));
        EXPECT_EQ(untold->receive().body_case(), proto::Frame::BODY_NOT_SET);
    }
    const auto b = dialled_by("b");
    EXPECT_TRUE(b->receive().has_hello());
    hear(*b);
    EXPECT_EQ(reason.wait_for(0s), std::future_status::timeout);
    b->send(rejected(proto::Reject::LOST_LOG));
    ASSERT_EQ(reason.wait_for(30s), std::future_status::ready);
    EXPECT_EQ(reason.get(), "for good: b refuses this node: because");
}

TEST_F(NodeAmongPeers, WhoIsDialledCanEndItWithoutTellingALog) {
    start();
    const auto c = c_.accept();
    EXPECT_TRUE(c->receive().has_hello());
    c->send(hello("c", 0));
    c->send(rejected(proto::Reject::LOST_LOG));
    EXPECT_EQ(reason_of_end(), "for good: c refuses this node: because");
}

// It is started again and again, with a new log each time, and both dial. In between another is there.
TEST_F(NodeAmongPeers, AMemberThatIsRefusedAgainAndAgainIsLoggedOnce) {
    const Logged logged;
    start();
    {
        const auto b = b_.accept();
        EXPECT_TRUE(b->receive().has_hello());
        b->send(hello("b"));
        hear(*b);
    }
    for (std::uint64_t i = 1; i <= 2; ++i) {
        const auto calls = dialled_by("b", kTheirLog + 2 * i);
        EXPECT_EQ(calls->receive().reject().cause(), proto::Reject::LOST_LOG);
        const auto is_called = b_.accept();
        EXPECT_TRUE(is_called->receive().has_hello());
        is_called->send(hello("b", kTheirLog + 2 * i + 1));
        EXPECT_EQ(is_called->receive().reject().cause(), proto::Reject::LOST_LOG);
        const auto other = b_.accept();
        EXPECT_TRUE(other->receive().has_hello());
        other->send(rejected(proto::Reject::OTHER));
        EXPECT_EQ(other->receive().body_case(), proto::Frame::BODY_NOT_SET);
    }
    stop();
    EXPECT_EQ(logged.times("node b has another log"), 1U) << logged.all();
    EXPECT_EQ(logged.times("it refuses: because"), 1U) << logged.all();
}

TEST_F(NodeAmongPeers, AMemberWithAnotherLogIsRefusedAlsoAfterARestart) {
    start();
    {
        const auto b = dialled_by("b");
        EXPECT_TRUE(b->receive().has_hello());
    }
    for (int i = 0; i < 2; ++i) {
        const auto emptied = dialled_by("b", kTheirLog + 1);
        const proto::Frame answer = emptied->receive();
        EXPECT_EQ(answer.reject().cause(), proto::Reject::LOST_LOG);
        EXPECT_THAT(answer.reject().reason(), testing::HasSubstr("node b has another log"));
        stop();
        start();
    }
    const auto b = dialled_by("b");
    EXPECT_TRUE(b->receive().has_hello());
    const auto before = dialled_by("b", 0);  // of a version that does not tell
    EXPECT_TRUE(before->receive().has_hello());
}

// A command that a member cannot read would end it, at each start anew.
TEST_F(NodeAmongPeers, NoSessionIsOpenedUntilEveryMemberHasSaidThatItKnowsThem) {
    Opening with_one_to_come;
    Opening with_one_away;
    for (const std::uint64_t log : {std::uint64_t{0}, kTheirLog}) {  // versions that tell no log, and that do
        Opening opening;
        start();
        const auto b = Peer::dial(port_);
        b->send(hello_of_before("b", log));
        EXPECT_TRUE(b->receive().has_hello());
        open_session(opening);
        EXPECT_EQ(opening.refusal(),
                  "no session can be opened: b runs an outrider that does not know sessions: upgrade all "
                  "nodes first");
        EXPECT_EQ(opening.code, api::Code::kFailedPrecondition);
        stop();
    }
    start();
    {
        const auto b = dialled_by("b");  // upgraded
        EXPECT_TRUE(b->receive().has_hello());
        open_session(with_one_to_come);
        hear(*b);
        const auto c = dialled_by("c");
        EXPECT_TRUE(c->receive().has_hello());
        hear(*c);
        send_members(*b, 1, {}, 0);
        EXPECT_TRUE(forwarded(*b));
    }
    stop();
    start();  // c is away now
    const auto b = dialled_by("b");
    EXPECT_TRUE(b->receive().has_hello());
    make_members(*b, 2, {}, 0);
    open_session(with_one_away);
    EXPECT_TRUE(forwarded(*b));
    stop();
}

TEST_F(NodeAmongPeers, AMemberThatDoesNotComeIsNamedToWhoWantsASession) {
    Opening opening;
    start();
    const auto b = dialled_by("b");
    EXPECT_TRUE(b->receive().has_hello());
    const auto c = c_.accept();
    EXPECT_TRUE(c->receive().has_hello());
    c->send(hello("c"));
    hear(*c);
    make_members(*b, 1, {"z"}, 0);
    open_session(opening);
    EXPECT_EQ(opening.refusal(),
              "no session can be opened: z is not connected, and has not told yet that it knows sessions: "
              "upgrade and start all nodes first");
    EXPECT_EQ(opening.code, api::Code::kFailedPrecondition);
}

// What it answers to a greeting, it has remembered: it may die at any moment from then on.
TEST_F(NodeAmongPeers, AMemberIsRememberedBeforeItsGreetingIsAnswered) {
    start();
    const auto b = dialled_by("b");
    EXPECT_TRUE(b->receive().has_hello());
    EXPECT_EQ(kept("b"), kTheirLog);
}

TEST_F(NodeAmongPeers, WhatANewMemberSaysAtOnceIsHeardWhenItIsRemembered) {
    start();
    const auto c = c_.accept();
    EXPECT_TRUE(c->receive().has_hello());
    c->send(hello("c"));
    for (std::uint64_t i = 1; i <= 3; ++i)
        c->send(ask_for_lease(i));
    for (std::uint64_t i = 1; i <= 3; ++i)
        EXPECT_EQ(c->receive().lease_tell().sequence(), i);
}

TEST_F(NodeAmongPeers, AStrangerThatBecomesAMemberIsRememberedBeforeItIsHeardAgain) {
    start();
    const auto b = dialled_by("b");
    EXPECT_TRUE(b->receive().has_hello());
    const auto c = c_.accept();
    EXPECT_TRUE(c->receive().has_hello());
    c->send(hello("c"));
    hear(*c);
    hear(*b);
    const auto z = dialled_by("z");
    EXPECT_TRUE(z->receive().has_hello());
    hear(*z);
    EXPECT_EQ(kept("z"), 0U);  // of strangers nothing is kept
    make_members(*b, 1, {"z"}, 0);
    hear(*z);
    EXPECT_EQ(kept("z"), kTheirLog);
    const auto emptied = dialled_by("z", kTheirLog + 1);
    EXPECT_EQ(emptied->receive().reject().cause(), proto::Reject::LOST_LOG);

    // Of who is removed nothing is kept, when that is committed. The order of the file's writes: z's before y's.
    make_members(*b, 2, {}, 1);
    EXPECT_EQ(kept("z"), kTheirLog);
    make_members(*b, 3, {"y"}, 2);
    make_members(*b, 4, {"y"}, 4);
    const auto y = dialled_by("y");
    EXPECT_TRUE(y->receive().has_hello());
    EXPECT_EQ(kept("y"), kTheirLog);
    EXPECT_EQ(kept("z"), 0U);
    EXPECT_EQ(kept("b"), kTheirLog);
}

}  // namespace
}  // namespace outrider::node
