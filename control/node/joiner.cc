#include "control/node/joiner.h"

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/log.h"
#include "base/uv/loop.h"
#include "base/uv/resolver.h"
#include "base/uv/tcp_stream.h"
#include "config/syntax.h"
#include "control/node/alarm.h"
#include "control/node/complaints.h"
#include "control/node/frame.h"
#include "control/node/peers.h"
#include "control/node/wire.h"

namespace outrider::node {
namespace {

using namespace std::chrono_literals;

constexpr Duration kAnswerTime = 2s;
constexpr Duration kBetween = 500ms;

// One question to one peer.
class Question final : public uv::TcpStream {
  public:
    using Done = std::function<void(const Result<proto::JoinTell>&)>;
    Question(uv::Loop& loop, std::string own_address, Done done)
        : TcpStream(loop),
          own_address_(std::move(own_address)),
          done_(std::move(done)),
          alarm_([this](Instant) { end(Error{"no answer"}); }) {}

    void ask(const uv::SocketAddress& peer) {
        loop().schedule(alarm_, kAnswerTime);
        if (const auto begun = connect(peer); !begun) end(Error{begun.error()});
    }

  private:
    ~Question() override = default;
    void end(Result<proto::JoinTell> result) {
        if (closing()) return;
        loop().cancel(alarm_);
        result_ = std::move(result);
        close();
    }
    void on_connected() override {
        start_reading();
        proto::Frame frame;
        frame.mutable_join_ask()->set_protocol(kPeerProtocol);
        frame.mutable_join_ask()->set_address(own_address_);
        std::string bytes;
        append_frame(frame.SerializeAsString(), bytes);
        write_copy(bytes);
    }
    void on_read(std::string_view data) override {
        reader_.add(data);
        auto payload = reader_.next();
        if (!payload) {
            end(Error{payload.error()});
        } else if (*payload) {
            proto::Frame frame;
            if (!frame.ParseFromArray((**payload).data(), static_cast<int>((**payload).size())))
                end(Error{"it is no outrider node"});
            else if (!frame.has_join_tell())
                end(Error{"it does not know the question"});
            else
                end(frame.join_tell());
        }
    }
    void on_eof() override { end(Error{uv::end_text(0)}); }
    void on_error(int error) override { end(Error{uv::end_text(error)}); }
    void on_closed() override {
        done_(*result_);
        delete this;
    }

    const std::string own_address_;
    const Done done_;
    FrameReader reader_;
    std::optional<Result<proto::JoinTell>> result_;
    Alarm alarm_;
};

Result<proto::JoinTell> ask(const config::HostPort& peer, const std::string& own_address) {
    uv::Loop loop;
    uv::Resolver resolver(loop.raw());
    Result<proto::JoinTell> result = Error{"no answer"};
    const auto begin = [&](const std::string& ip) {
        const auto address = uv::SocketAddress::parse(ip, peer.port);
        auto* question = new Question(loop, own_address, [&](const Result<proto::JoinTell>& answer) {
            result = answer;
            resolver.close();
            loop.after(1ms, [&] { loop.stop(); });  // libuv lets go of what was closed in its next turn
        });
        const uv::Loop::Event event(loop);
        question->ask(*address);
    };
    if (config::is_ip_literal(peer.host)) {
        begin(peer.host);
    } else {
        resolver.resolve_addresses(peer.host, [&](const uv::Resolution<uv::ResolvedAddresses>& found) {
            if (const auto* addresses = std::get_if<uv::ResolvedAddresses>(&found)) {
                begin(addresses->ips.front());
                return;
            }
            result = Error{std::get<uv::ResolveError>(found).message};
            resolver.close();
            loop.after(1ms, [&] { loop.stop(); });
        });
    }
    loop.run();
    return result;
}

void pause() {
    uv::Loop loop;
    loop.after(kBetween, [&] { loop.stop(); });
    loop.run();
}

}  // namespace

Result<Identity> ask_to_join(const config::ControlSettings& settings) {
    const std::string own_address = config::to_string(settings.peers.at(settings.name));
    log_info("joining: asking the members of the cluster who has {}", own_address);
    for (std::map<std::string, Complaints> complaints;; pause()) {  // by the peer's name
        // A member gives an id that it has not met with data; it may be the only one of them that has not.
        std::optional<Identity> given;
        bool lost = false;
        for (const auto& [name, peer] : settings.peers) {
            if (name == settings.name) continue;
            const Result<proto::JoinTell> answer = ask(peer, own_address);
            std::string problem;
            if (!answer) {
                problem = name + ": " + answer.error();
            } else if (answer->cluster() != settings.cluster) {
                return Error{"control.cluster: the cluster of " + name + " is named \"" + answer->cluster() +
                             "\", and the file says \"" + settings.cluster + "\""};
            } else if (answer->lost()) {
                lost = true;
                problem = "the member with the address " + own_address +
                          " has had its data already, and this directory is empty: remove the member and "
                          "add it again (outrider ctl member remove, member add)";
            } else if (answer->node_id() == 0) {
                problem = "no member of the cluster has the address " + own_address +
                          " yet: add it (outrider ctl member add http://" + own_address + ")";
            } else {
                given.emplace();
                given->cluster_id = answer->cluster_id();
                given->node = {answer->node_id()};
                given->name = settings.name;
                given->cluster = settings.cluster;
                continue;
            }
            if (complaints[name].due(problem, uv::read_clock())) log_warning("joining: {}", problem);
        }
        if (given && !lost) return std::move(*given);
    }
}

}  // namespace outrider::node
