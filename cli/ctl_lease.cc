// ctl lease: grant, revoke, keepalive, ttl, list.
#include <csignal>

#include "base/uv/acceptor.h"
#include "cli/ctl_run.h"
#include "control/agent/lease_keeper.h"

namespace outrider::cli {
namespace {

std::int64_t lease_id(const std::string& text) {
    return static_cast<std::int64_t>(*parse_id(text));
}
std::string lease_text(std::int64_t id) {
    return hex_id(static_cast<std::uint64_t>(id));
}

void add_id(CLI::App& command, std::string& id) {
    command.add_option("id", id, "The lease")->required()->check(check_id);
}

void add_grant(CLI::App& lease, const CtlOptionsPtr& options) {
    struct Arguments {
        std::int64_t ttl = 0;
        std::string id = "0";
    };
    auto arguments = std::make_shared<Arguments>();
    auto* grant = lease.add_subcommand("grant", "Make a lease")->fallthrough();
    grant->add_option("ttl", arguments->ttl, "How many seconds it lasts without a renewal")
        ->required()
        ->check(whole_number(1, "seconds"));
    grant->add_option("--id", arguments->id, "Its id (default: the server chooses)")->check(check_id);
    grant->callback([arguments, options] {
        CtlRun run(*options);
        *options->code = run.run([&] {
            v3::LeaseGrantRequest request;
            request.set_ttl(arguments->ttl);
            request.set_id(lease_id(arguments->id));
            run.show(request, [&](const v3::LeaseGrantResponse& response) {
                run.print("lease " + lease_text(response.id()) + " granted for " +
                          std::to_string(response.ttl()) + " s\n");
                run.finish();
            });
        });
    });
}

void add_revoke(CLI::App& lease, const CtlOptionsPtr& options) {
    auto id = std::make_shared<std::string>();
    auto* revoke = lease.add_subcommand("revoke", "End a lease and delete its keys")->fallthrough();
    add_id(*revoke, *id);
    revoke->callback([id, options] {
        CtlRun run(*options);
        *options->code = run.run([&] {
            v3::LeaseRevokeRequest request;
            request.set_id(lease_id(*id));
            run.show(request, [&](const v3::LeaseRevokeResponse&) {
                run.print("lease " + lease_text(lease_id(*id)) + " revoked\n");
                run.finish();
            });
        });
    });
}

// Renews at a third of the time to live until Ctrl-C or the lease is gone; the rules are LeaseKeeper's.
class KeepAliveRun {
  public:
    KeepAliveRun(CtlRun& run, std::int64_t id, bool once)
        : run_(run),
          id_(id),
          once_(once),
          signals_(run.loop(), {SIGINT, SIGTERM}, [this](int) { run_.finish(); }) {
        renew();
    }

  private:
    void renew() {
        v3::LeaseKeepAliveRequest request;
        request.set_id(id_);
        const Instant sent = run_.loop().now();
        if (keeper_) keeper_->renewal_sent(sent);
        run_.client().call(
            request, run_.call_options(),
            [this, sent](const agent::Reply<v3::LeaseKeepAliveResponse>& reply) { answered(sent, reply); });
    }
    void answered(Instant sent, const agent::Reply<v3::LeaseKeepAliveResponse>& reply) {
        const Instant now = run_.loop().now();
        const Duration ttl = std::chrono::seconds(reply.body.ttl());
        if (!reply.ok() && (!keeper_ || once_)) {
            run_.fail(CtlRun::reason_of(reply));
            return;
        }
        if (reply.ok() && ttl == Duration(0)) {
            run_.fail("there is no lease " + lease_text(id_));
            return;
        }
        if (!keeper_) keeper_.emplace(sent, ttl);
        reply.ok() ? keeper_->renewal_answered(sent, ttl, now) : keeper_->renewal_failed(now);
        if (reply.ok()) {
            run_.print(run_.json() ? agent::to_json(reply.body) + "\n"
                                   : "lease " + lease_text(id_) + " renewed for " +
                                         std::to_string(reply.body.ttl()) + " s\n");
        }
        if (keeper_->observe(now) != agent::LeaseKeeper::State::kHeld) {
            run_.fail("no renewal was answered in time: " + reply.reason);
        } else if (once_) {
            run_.finish();
        } else {
            run_.loop().after(std::max(keeper_->next_action() - now, Duration(0)), [this] { renew(); });
        }
    }

    CtlRun& run_;
    const std::int64_t id_;
    const bool once_;
    uv::Signals signals_;
    std::optional<agent::LeaseKeeper> keeper_;
};

void add_keepalive(CLI::App& lease, const CtlOptionsPtr& options) {
    struct Arguments {
        std::string id;
        bool once = false;
    };
    auto arguments = std::make_shared<Arguments>();
    auto* keepalive =
        lease.add_subcommand("keepalive", "Renew a lease again and again, until Ctrl-C")->fallthrough();
    add_id(*keepalive, arguments->id);
    keepalive->add_flag("--once", arguments->once, "Renew it once");
    keepalive->callback([arguments, options] {
        CtlRun run(*options);
        std::unique_ptr<KeepAliveRun> keeping;
        *options->code = run.run(
            [&] { keeping = std::make_unique<KeepAliveRun>(run, lease_id(arguments->id), arguments->once); });
    });
}

void add_ttl(CLI::App& lease, const CtlOptionsPtr& options) {
    struct Arguments {
        std::string id;
        bool keys = false;
    };
    auto arguments = std::make_shared<Arguments>();
    auto* ttl =
        lease.add_subcommand("ttl", "How long a lease still lasts; exit 1 when there is none")->fallthrough();
    add_id(*ttl, arguments->id);
    ttl->add_flag("--keys", arguments->keys, "With the keys attached to it");
    ttl->callback([arguments, options] {
        CtlRun run(*options);
        *options->code = run.run([&] {
            v3::LeaseTimeToLiveRequest request;
            request.set_id(lease_id(arguments->id));
            request.set_keys(arguments->keys);
            run.ask(request, [&](const v3::LeaseTimeToLiveResponse& response) {
                const bool gone = response.ttl() < 0;
                if (run.json()) {
                    run.print(agent::to_json(response) + "\n");
                    run.finish(gone ? 1 : 0);
                    return;
                }
                if (gone) {
                    run.fail("there is no lease " + lease_text(response.id()));
                    return;
                }
                std::string text = "lease " + lease_text(response.id()) + " lasts " +
                                   std::to_string(response.ttl()) + " s of " +
                                   std::to_string(response.grantedttl()) + " s\n";
                for (const std::string& key : response.keys())
                    text += printable(key) + "\n";
                run.print(text);
                run.finish();
            });
        });
    });
}

void add_list(CLI::App& lease, const CtlOptionsPtr& options) {
    auto* list = lease.add_subcommand("list", "All leases")->fallthrough();
    list->callback([options] {
        CtlRun run(*options);
        *options->code = run.run([&] {
            run.show(v3::LeaseLeasesRequest(), [&](const v3::LeaseLeasesResponse& response) {
                Table table({"LEASE"});
                for (const v3::LeaseStatus& status : response.leases())
                    table.add({lease_text(status.id())});
                run.print(table.text());
                run.finish();
            });
        });
    });
}

}  // namespace

void add_ctl_lease(CLI::App& ctl, const CtlOptionsPtr& options) {
    auto* lease = ctl.add_subcommand("lease", "Leases: grant, renew, look at, revoke")->fallthrough();
    lease->require_subcommand(1);
    add_grant(*lease, options);
    add_revoke(*lease, options);
    add_keepalive(*lease, options);
    add_ttl(*lease, options);
    add_list(*lease, options);
}

}  // namespace outrider::cli
