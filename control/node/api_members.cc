// Changes of members as clients ask for them: etcd's calls, refused with etcd's words.
//
// Other than in etcd a member that is added as a voter begins as a learner and becomes a voter by itself when it has caught up: until
// then it costs no availability (thesis 4.2.1).
#include <algorithm>

#include "base/uv/acceptor.h"
#include "config/syntax.h"
#include "control/node/api_call.h"
#include "control/node/identity.h"

namespace outrider::node {
namespace {

using Kind = raft::ChangeMembership::Kind;

constexpr api::Problem kUrlExists{api::Code::kFailedPrecondition, "etcdserver: Peer URLs already exists"};
constexpr api::Problem kNotLearner{api::Code::kFailedPrecondition,
                                   "etcdserver: can only promote a learner member"};
constexpr api::Problem kTooFewStarted{
    api::Code::kFailedPrecondition, "etcdserver: re-configuration failed due to not enough started members"};
constexpr api::Problem kTooManyMembers{api::Code::kFailedPrecondition, "there are too many members"};

// Of one URL, "http://host:port"; the scheme may be left out.
std::optional<std::string> peer_address(const std::vector<std::string>& urls) {
    if (urls.size() != 1) return std::nullopt;
    std::string_view text = urls.front();
    constexpr std::string_view kScheme = "http://";
    if (text.starts_with(kScheme)) text.remove_prefix(kScheme.size());
    while (text.ends_with('/'))
        text.remove_suffix(1);
    const auto address = config::parse_host_port(text);
    if (!address) return std::nullopt;
    return config::to_string(*address);
}

api::Problem problem_of(raft::Refusal refusal, api::Call call) {
    switch (refusal) {
        case raft::Refusal::kNotMember:
            return api::kMemberNotFound;
        case raft::Refusal::kAlreadyMember:
            return call == api::Call::kMemberPromote ? kNotLearner : kUrlExists;
        case raft::Refusal::kNotCaughtUp:
            return api::kLearnerNotReady;
        case raft::Refusal::kLastVoter:
            return kTooFewStarted;
        case raft::Refusal::kTooManyMembers:
            return kTooManyMembers;
        default:
            return api::kUnhealthy;
    }
}

}  // namespace

void ApiCall::begin_member_change() {
    Node& node = server_.node();
    const auto& members = node.members().members;
    const auto at = [&](const std::string& peer) {
        return std::find_if(members.begin(), members.end(), [&](const raft::Member& member) {
            return parse_member_address(member.address).peer == peer;
        });
    };
    raft::ChangeMembership change;
    if (const auto* add = std::get_if<api::MemberAdd>(&*request_)) {
        const auto peer = peer_address(add->peer_urls);
        if (!peer) return refuse(api::kMemberUrlsInvalid);
        if (at(*peer) != members.end()) return refuse(kUrlExists);
        added_member_ = added_node_id(node.identity().cluster_id, *peer, uv::random_seed()).value;
        change = {Kind::kAddLearner, {*added_member_}, to_string(MemberAddress{"", *peer, !add->learner})};
    } else if (const auto* remove = std::get_if<api::MemberRemove>(&*request_)) {
        change = {Kind::kRemove, {remove->id}, {}};
    } else if (const auto* promote = std::get_if<api::MemberPromote>(&*request_)) {
        change = {Kind::kPromote, {promote->id}, {}};
    } else {
        const auto& update = std::get<api::MemberUpdate>(*request_);
        const auto peer = peer_address(update.peer_urls);
        if (!peer) return refuse(api::kMemberUrlsInvalid);
        const raft::Member* member = node.members().find({update.id});
        if (member == nullptr) return refuse(api::kMemberNotFound);
        const auto other = at(*peer);
        if (other != members.end() && other->id != member->id) return refuse(kUrlExists);
        MemberAddress address = parse_member_address(member->address);
        address.peer = *peer;
        change = {Kind::kUpdate, {update.id}, to_string(address)};
    }
    node.change_members(*this, std::move(change));
}

void ApiCall::on_members(raft::Refusal refusal) {
    if (refusal != raft::Refusal::kNone) {
        refuse(problem_of(refusal, call_));
        return;
    }
    const std::vector<api::Member> members = server_.members();
    const auto added = std::find_if(members.begin(), members.end(),
                                    [&](const api::Member& member) { return member.id == added_member_; });
    send(server_.responder().members(members, added_member_ && added != members.end() ? &*added : nullptr));
}

}  // namespace outrider::node
