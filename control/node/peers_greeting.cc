// How a connection between nodes begins: who may talk to whom.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/log.h"
#include "control/node/peer_channel.h"
#include "control/node/peers.h"

namespace outrider::node {
namespace {

// For the log: no line of it can be made by what another process calls itself.
std::string escaped(std::string_view text) {
    std::string out;
    append_json_escaped(out, text);
    return out;
}

}  // namespace

proto::Hello Peers::hello(raft::NodeId to) const {
    proto::Hello out;
    out.set_protocol(kPeerProtocol);
    out.set_cluster_id(self_.cluster_id);
    out.set_node_id(self_.id.value);
    out.set_name(self_.name);
    out.set_api_address(self_.api_address);
    out.set_to(to.value);
    out.set_log_id(self_.log_id);
    out.set_knows(kOwnKnowledge);
    return out;
}

void Peers::greet(Channel& channel) {
    proto::Frame frame;
    *frame.mutable_hello() = hello(channel.peer());
    channel.queue(frame);
    channel.send_queued();
}

bool Peers::on_first_frame(Channel& channel, proto::Frame& frame) {
    if (frame.has_reject()) {
        on_reject(channel, frame.reject());
        return false;
    }
    if (frame.has_hello()) return on_hello(channel, frame.hello());
    if (frame.has_join_ask() && !channel.dialled()) {
        proto::Frame answer;
        handler_.on_join_ask(frame.join_ask(), *answer.mutable_join_tell());
        channel.queue(answer);
        channel.send_queued();
        return true;
    }
    channel.end("it did not begin with a greeting");
    return false;
}

bool Peers::on_hello(Channel& channel, const proto::Hello& hello) {
    std::string why;
    auto cause = proto::Reject::OTHER;
    const raft::NodeId from{hello.node_id()};
    const Peer* known = find(from);
    const bool listed = known != nullptr && known->listed;
    if (hello.name().size() > kNameBytesMax || hello.api_address().size() > kNameBytesMax ||
        escaped(hello.name()) != hello.name()) {
        why = fmt::format("a name or address of more than {} bytes, or of signs that no name has",
                          kNameBytesMax);
    } else if (hello.protocol() != kPeerProtocol) {
        why = fmt::format("protocol {} is spoken here, and {} there: upgrade one version at a time",
                          kPeerProtocol, hello.protocol());
    } else if (hello.cluster_id() != self_.cluster_id) {
        why = fmt::format(
            "node {} belongs to another cluster than {} ({:016x}, not {:016x}): are control.peers and "
            "control.cluster the same on both, and is the data directory of this cluster?",
            hello.name(), self_.name, hello.cluster_id(), self_.cluster_id);
        if (taking_part_) cause = proto::Reject::OTHER_CLUSTER;
    } else if (from == self_.id || from == raft::kNoNode) {
        why = fmt::format("node {} has the id of {}: two processes must not be one node", hello.name(),
                          self_.name);
    } else if (channel.dialled() ? from != channel.peer()
                                 : hello.to() != 0 && raft::NodeId{hello.to()} != self_.id) {
        why = fmt::format("another node was expected at this address: {} met {}", hello.name(), self_.name);
    }
    if (why.empty() && !listed && unlisted_open() >= kStrangersMax)
        why = fmt::format("{} nodes that are no members are connected already", kStrangersMax);
    // Also one that is no member (any more) may connect: it is told so, and one that was just added may be unknown here.
    if (!why.empty()) {
        reject(channel, why, cause);
        return false;
    }
    channel.hold(hello);
    admit(channel);
    if (channel.closing()) return false;
    if (channel.dialled()) handler_.on_peer_taken(from);  // it has answered this node's greeting
    return true;
}

// ---- of the log that a member has (known_logs.h) --------------------------------------------------------------------

// Lets a held channel go on when its node's log is remembered, or need not be.
void Peers::admit(Channel& channel) {
    const raft::NodeId id{channel.greeting().node_id()};
    const std::uint64_t log = channel.greeting().log_id();
    const Peer* known = find(id);
    if (known != nullptr && known->listed) {
        switch (logs_.judge(id, log)) {
            case KnownLogs::Verdict::kAnother:
                reject(
                    channel,
                    fmt::format(
                        "node {} has another log ({:016x}) than the one that {} has met ({:016x}): "
                        "its data is lost, and with it how it voted and what it acknowledged. Put the data "
                        "back, or remove the member and add it again, with an empty "
                        "directory (outrider ctl member remove, member add)",
                        channel.greeting().name(), log, self_.name, logs_.of(id)),
                    proto::Reject::LOST_LOG);
                return;
            case KnownLogs::Verdict::kNew:
                logs_.remember(id, log);
                logs_.learn(id, channel.greeting().knows());
                keep_logs();
                return;
            case KnownLogs::Verdict::kKnown:
                if (kept_logs_.judge(id, log) != KnownLogs::Verdict::kKnown) return;  // it is being written
                break;
            case KnownLogs::Verdict::kUntold:
                break;
        }
        // True now, whether or not it is on the disk yet.
        if (logs_.learn(id, channel.greeting().knows())) keep_logs();
    }
    if (!channel.open()) opened(channel, channel.greeting());
    channel.go_on();
}

void Peers::admit_held() {
    for (Channel* channel : std::vector<Channel*>(channels_)) {
        if (channel->held() && !channel->closing()) admit(*channel);
    }
}

void Peers::keep_logs() {
    handler_.keep_known_logs(logs_, [this, logs = logs_] {
        if (closing_) return;
        kept_logs_ = logs;
        admit_held();
    });
}

void Peers::forget_others(const raft::Configuration& members) {
    if (logs_.forget_others(members)) keep_logs();
}

// One that was connected as a stranger has become a member.
void Peers::hold_new_member(Peer& peer) {
    Channel* channel = peer.channel;
    if (channel == nullptr || channel->held()) return;
    const auto verdict = kept_logs_.judge(peer.id, channel->greeting().log_id());
    if (verdict == KnownLogs::Verdict::kKnown || verdict == KnownLogs::Verdict::kUntold) return;
    channel->hold(proto::Hello(channel->greeting()));
    loop_.post([this] {
        if (!closing_) admit_held();
    });
}

// It is where that member is expected, or it has the log that this node has met. Who only says that it is the member is not
// believed: if it is true, this node hears so when it dials. One that joins knows no members yet, and dials nobody.
bool Peers::may_end_this_node(const Channel& channel) const {
    const bool joins =
        std::none_of(peers_.begin(), peers_.end(), [](const auto& p) { return p.second.listed; });
    const Peer* peer = find(channel.peer());
    const bool member = peer != nullptr && peer->listed;
    return joins ||
           (member && (channel.dialled() || logs_.judge(channel.peer(), channel.greeting().log_id()) ==
                                                KnownLogs::Verdict::kKnown));
}

void Peers::on_reject(Channel& channel, const proto::Reject& reject) {
    const std::string reason = escaped(reject.reason().substr(0, 500));
    const Peer* known = find(channel.peer());  // none: whoever connected has said nothing but this
    if (reject.cause() == proto::Reject::LOST_LOG && known != nullptr && may_end_this_node(channel) &&
        !closing_)
        handler_.on_log_lost(fmt::format("{} refuses this node: {}", known->name, reason));
    if (reject.cause() == proto::Reject::OTHER_CLUSTER && channel.dialled() && known != nullptr &&
        known->listed && !closing_)
        handler_.on_other_cluster(known->id, reason);
    channel.end("it refuses: " + reason);
}

std::size_t Peers::unlisted_open() const {
    return static_cast<std::size_t>(std::count_if(peers_.begin(), peers_.end(), [](const auto& entry) {
        return !entry.second.listed && entry.second.channel != nullptr;
    }));
}

void Peers::reject(Channel& channel, const std::string& why, proto::Reject::Cause cause) {
    proto::Frame frame;
    frame.mutable_reject()->set_reason(why);
    frame.mutable_reject()->set_cause(cause);
    channel.queue(frame);
    channel.send_queued();
    bool say = false;
    if (cause == proto::Reject::LOST_LOG) {
        Peer& member = peer({channel.greeting().node_id()});
        say = member.lost_log.due("", loop_.now());  // the log's id may be another each time
        member.last_problem = why;                   // no other word of it, if this node dialled
    } else {
        say = !channel.dialled() && refusals_.due(why, loop_.now());
    }
    if (say) log_warning("a peer was refused: {}", why);
    channel.end(why);
}

void Peers::opened(Channel& channel, const proto::Hello& greeting) {
    const raft::NodeId id{greeting.node_id()};
    Peer& known = peer(id);
    if (known.dialling == &channel) known.dialling = nullptr;
    if (known.channel != nullptr) {
        Channel* const old = std::exchange(known.channel, nullptr);
        old->end("a newer connection takes its place");
        handler_.on_peer_lost(id, true);
    }
    known.channel = &channel;
    known.name = greeting.name();
    known.api_address = greeting.api_address();
    known.failures = 0;
    known.last_problem.clear();
    known.problems.clear();
    loop_.cancel(*known.redial);
    channel.become_open(id);
    proto::Frame frame;
    if (channel.dialled()) {
        frame.mutable_ping();  // tells at once that the answer to the greeting was right
    } else {
        *frame.mutable_hello() = hello({});
    }
    channel.queue(frame);
    channel.send_queued();
    log_info("peer {} is connected", known.name);
    handler_.on_peer_connected(id);
}

}  // namespace outrider::node
