// ctl member: list, add, remove, promote, update. ctl status: each endpoint's own view.
#include <cstdio>

#include "base/bytes.h"
#include "cli/ctl_run.h"

namespace outrider::cli {
namespace {

std::string joined(const google::protobuf::RepeatedPtrField<std::string>& texts) {
    std::string out;
    for (const std::string& text : texts)
        out += (out.empty() ? "" : ",") + text;
    return out.empty() ? "-" : out;
}

std::string table_of(const google::protobuf::RepeatedPtrField<v3::Member>& members) {
    Table table({"ID", "NAME", "ROLE", "PEERS", "CLIENTS"});
    for (const v3::Member& member : members) {
        table.add({hex_id(member.id()), member.name().empty() ? "-" : member.name(),
                   member.islearner() ? "learner" : "voter", joined(member.peerurls()),
                   joined(member.clienturls())});
    }
    return table.text();
}

// The id of the member that `text` names: by its name, or its id as printed or in decimal.
Result<std::uint64_t> find_member(const v3::MemberListResponse& list, const std::string& text) {
    std::optional<std::uint64_t> found;
    for (const v3::Member& member : list.members()) {
        if (member.name() != text) continue;
        if (found) return Error{"several members are called " + printable(text) + ": name one by its id"};
        found = member.id();
    }
    const auto id = parse_id(text);
    for (const v3::Member& member : list.members()) {
        if (!found && id && member.id() == *id) found = member.id();
    }
    if (!found) return Error{"there is no member " + printable(text)};
    return *found;
}

// Looks the member up, then sends what `request_for` makes of its id.
template <typename Request>
int run_on_member(const CtlOptionsPtr& options, const std::string& text,
                  const std::function<Request(std::uint64_t)>& request_for, const std::string& done) {
    CtlRun run(*options);
    return run.run([&] {
        run.ask(v3::MemberListRequest(), [&](const v3::MemberListResponse& list) {
            const auto id = find_member(list, text);
            if (!id) {
                run.fail(id.error());
                return;
            }
            run.show(request_for(*id), [&, id = *id](const typename agent::Rpc<Request>::Response& response) {
                run.print("member " + hex_id(id) + " " + done + "\n" + table_of(response.members()));
                run.finish();
            });
        });
    });
}

void add_list(CLI::App& member, const CtlOptionsPtr& options) {
    auto* list = member.add_subcommand("list", "All members")->fallthrough();
    list->callback([options] {
        CtlRun run(*options);
        *options->code = run.run([&] {
            run.show(v3::MemberListRequest(), [&](const v3::MemberListResponse& response) {
                run.print(table_of(response.members()));
                run.finish();
            });
        });
    });
}

void add_add(CLI::App& member, const CtlOptionsPtr& options) {
    struct Arguments {
        std::vector<std::string> peers;
        bool learner = false;
    };
    auto arguments = std::make_shared<Arguments>();
    auto* add = member.add_subcommand("add", "Add a member; start its process afterwards")->fallthrough();
    add->add_option("peer", arguments->peers, "How the others reach it: http://host:port")->required();
    add->add_flag("--learner", arguments->learner, "It gets the log and has no vote until it is promoted");
    add->callback([arguments, options] {
        CtlRun run(*options);
        *options->code = run.run([&] {
            v3::MemberAddRequest request;
            for (const std::string& peer : arguments->peers)
                request.add_peerurls(peer.find("://") == std::string::npos ? "http://" + peer : peer);
            request.set_islearner(arguments->learner);
            run.show(request, [&](const v3::MemberAddResponse& response) {
                run.print("member " + hex_id(response.member().id()) + " added\n" +
                          table_of(response.members()));
                run.finish();
            });
        });
    });
}

void add_remove(CLI::App& member, const CtlOptionsPtr& options) {
    auto name = std::make_shared<std::string>();
    auto* remove = member.add_subcommand("remove", "Remove a member")->fallthrough();
    remove->add_option("member", *name, "Its name or its id")->required();
    remove->callback([name, options] {
        *options->code = run_on_member<v3::MemberRemoveRequest>(
            options, *name,
            [](std::uint64_t id) {
                v3::MemberRemoveRequest request;
                request.set_id(id);
                return request;
            },
            "removed");
    });
}

void add_promote(CLI::App& member, const CtlOptionsPtr& options) {
    auto name = std::make_shared<std::string>();
    auto* promote = member.add_subcommand("promote", "Give a learner its vote")->fallthrough();
    promote->add_option("member", *name, "Its name or its id")->required();
    promote->callback([name, options] {
        *options->code = run_on_member<v3::MemberPromoteRequest>(
            options, *name,
            [](std::uint64_t id) {
                v3::MemberPromoteRequest request;
                request.set_id(id);
                return request;
            },
            "promoted");
    });
}

void add_update(CLI::App& member, const CtlOptionsPtr& options) {
    struct Arguments {
        std::string name;
        std::vector<std::string> peers;
    };
    auto arguments = std::make_shared<Arguments>();
    auto* update = member.add_subcommand("update", "Change how the others reach a member")->fallthrough();
    update->add_option("member", arguments->name, "Its name or its id")->required();
    update->add_option("peer", arguments->peers, "http://host:port")->required();
    update->callback([arguments, options] {
        *options->code = run_on_member<v3::MemberUpdateRequest>(
            options, arguments->name,
            [arguments](std::uint64_t id) {
                v3::MemberUpdateRequest request;
                request.set_id(id);
                for (const std::string& peer : arguments->peers)
                    request.add_peerurls(peer.find("://") == std::string::npos ? "http://" + peer : peer);
                return request;
            },
            "updated");
    });
}

// ---- status ---------------------------------------------------------------------------------------------------------------

std::string size_text(std::int64_t bytes) {
    static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB"};
    double size = static_cast<double>(bytes);
    std::size_t unit = 0;
    for (; size >= 1024 && unit < 3; ++unit)
        size /= 1024;
    char text[32];
    std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", size, kUnits[unit]);
    return text;
}

std::string role_of(const v3::StatusResponse& status) {
    if (status.leader() == 0) return "no leader";
    if (status.islearner()) return "learner";
    return status.leader() == status.header().member_id() ? "leader" : "follower";
}

// Asks every endpoint at once, and each for itself: no fail-over.
class StatusRun {
  public:
    explicit StatusRun(CtlRun& run)
        : run_(run), endpoints_(run.options().endpoint_list()), answers_(endpoints_.size()) {
        const Instant begun = run_.loop().now();
        for (std::size_t i = 0; i < endpoints_.size(); ++i) {
            agent::CallOptions options = run_.call_options();
            options.endpoint = i;
            run_.client().call(v3::StatusRequest(), options,
                               [this, i, begun](const agent::Reply<v3::StatusResponse>& reply) {
                                   answers_[i] = {reply, run_.loop().now() - begun};
                                   if (++answered_ == endpoints_.size()) show();
                               });
        }
    }

  private:
    struct Answer {
        agent::Reply<v3::StatusResponse> reply;
        Duration took{};
    };

    void show() {
        run_.json() ? show_json() : show_table();
        int failed = 0;
        for (std::size_t i = 0; i < endpoints_.size(); ++i) {
            if (answers_[i].reply.ok()) continue;
            ++failed;
            // Of an attempt that failed the reason names the endpoint; of a refusal it does not.
            const std::string& reason = answers_[i].reply.reason;
            const std::string named = endpoints_[i] + ": ";
            std::fprintf(stderr, "outrider ctl: %s%s\n", reason.starts_with(named) ? "" : named.c_str(),
                         reason.c_str());
        }
        run_.finish(failed == 0 ? 0 : 1);
    }
    void show_json() {
        std::string text;
        for (std::size_t i = 0; i < endpoints_.size(); ++i) {
            const auto& reply = answers_[i].reply;
            std::string endpoint;
            append_json_escaped(endpoint, endpoints_[i]);
            text += "{\"endpoint\":\"" + endpoint + "\",";
            if (reply.ok()) {
                text += "\"status\":" + agent::to_json(reply.body) + "}\n";
            } else {
                std::string reason;
                append_json_escaped(reason, reply.reason);
                text += "\"error\":\"" + reason + "\"}\n";
            }
        }
        run_.print(text);
    }
    void show_table() {
        Table table({"ENDPOINT", "MEMBER", "ROLE", "VERSION", "TERM", "INDEX", "APPLIED", "REVISION", "SIZE",
                     "TIME", "ERRORS"});
        for (std::size_t i = 0; i < endpoints_.size(); ++i) {
            const auto& reply = answers_[i].reply;
            if (!reply.ok()) {
                table.add({endpoints_[i], "-", "no answer", "-", "-", "-", "-", "-", "-", "-", "-"});
                continue;
            }
            const v3::StatusResponse& status = reply.body;
            char took[32];
            std::snprintf(took, sizeof took, "%.1f ms", seconds_of(answers_[i].took) * 1e3);
            table.add({endpoints_[i], hex_id(status.header().member_id()), role_of(status), status.version(),
                       std::to_string(status.raftterm()), std::to_string(status.raftindex()),
                       std::to_string(status.raftappliedindex()), std::to_string(status.header().revision()),
                       size_text(status.dbsize()), took, joined(status.errors())});
        }
        run_.print(table.text());
    }

    CtlRun& run_;
    const std::vector<std::string> endpoints_;
    std::vector<Answer> answers_;
    std::size_t answered_ = 0;
};

}  // namespace

void add_ctl_member(CLI::App& ctl, const CtlOptionsPtr& options) {
    auto* member = ctl.add_subcommand("member", "Members of the quorum")->fallthrough();
    member->require_subcommand(1);
    add_list(*member, options);
    add_add(*member, options);
    add_remove(*member, options);
    add_promote(*member, options);
    add_update(*member, options);

    auto* status =
        ctl.add_subcommand("status", "What each endpoint says of itself; exit 1 when one does not answer")
            ->fallthrough();
    status->callback([options] {
        CtlRun run(*options);
        std::unique_ptr<StatusRun> asking;
        *options->code = run.run([&] { asking = std::make_unique<StatusRun>(run); });
    });
}

}  // namespace outrider::cli
