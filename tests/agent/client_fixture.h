// A client of real etcd-servers on the test's own loop.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "control/agent/client.h"
#include "control/agent/lease.h"
#include "control/agent/watch.h"
#include "tests/agent/server_cluster.h"
#include "tests/base_uv/loop_fixture.h"

namespace outrider::agent::test {

using namespace std::chrono_literals;

inline v3::PutRequest put(const std::string& key, const std::string& value) {
    v3::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    return request;
}
inline v3::RangeRequest get(const std::string& key) {
    v3::RangeRequest request;
    request.set_key(key);
    return request;
}
inline v3::RangeRequest get_prefix(const std::string& prefix) {
    v3::RangeRequest request = get(prefix);
    request.set_range_end(prefix_end(prefix));
    return request;
}

class Bench {
  public:
    explicit Bench(const std::vector<std::string>& endpoints) {
        ClientOptions options;
        options.endpoints = endpoints;
        options.backoff = {.first = 20ms, .max = 500ms};
        client = std::make_unique<Client>(run.loop(), options);
    }
    ~Bench() {
        client.reset();
        run.settle();  // what was open is closed
    }

    // One call, to its end.
    template <typename Request>
    Reply<typename Rpc<Request>::Response> call(const Request& request, const CallOptions& options = {}) {
        using Response = typename Rpc<Request>::Response;
        std::optional<Reply<Response>> said;
        bool inside = true;
        client->call(request, options, [&](const Reply<Response>& reply) {
            EXPECT_FALSE(inside) << "answered from within the call";
            said = reply;
        });
        inside = false;
        EXPECT_TRUE(run.until([&] { return said.has_value(); }));
        return said ? *said : Reply<Response>{};
    }
    // Until the cluster takes it: for what a test needs and is not about.
    template <typename Request>
    Reply<typename Rpc<Request>::Response> must(const Request& request) {
        auto reply = call(request, {.timeout = 15s, .repeatable = true});
        EXPECT_TRUE(reply.ok()) << reply.reason;
        return reply;
    }
    std::string value(const std::string& key) {
        const auto reply = must(get(key));
        return reply.body.kvs_size() == 0 ? "(none)" : reply.body.kvs(0).value();
    }
    // Of the cluster, which client it is that is asked first.
    std::size_t current(const ServerCluster& cluster) {
        const std::string endpoint = must(get("x")).endpoint;
        const auto all = cluster.endpoints();
        const auto found = std::find(all.begin(), all.end(), endpoint);
        EXPECT_NE(found, all.end());
        return static_cast<std::size_t>(found - all.begin());
    }

    http::test::LoopRun run;
    std::unique_ptr<Client> client;
};

// What a watch of a prefix has told, applied and checked.
class Observed {
  public:
    Observed(Bench& bench, const std::string& prefix, WatchCursor::First first = WatchCursor::First::kState,
             store::Revision revision = {}) {
        WatchOptions options;
        options.cursor.range = {prefix, prefix_end(prefix)};
        options.cursor.first = first;
        options.cursor.revision = revision;
        options.check_interval = 500ms;
        options.check_timeout = 2s;
        watch = std::make_unique<Watch>(
            *bench.client, options, [this](const WatchUpdate& update) { take(update); },
            [this](const std::string& reason) { troubles.push_back(reason); });
    }

    void take(const WatchUpdate& update) {
        if (update.kind == WatchUpdate::Kind::kProgress) return;
        EXPECT_GE(update.revision.value, seen) << "went back";
        resyncs += update.kind == WatchUpdate::Kind::kResync ? 1 : 0;
        std::int64_t last = seen;
        for (const v3::Event& event : update.events) {
            if (update.kind == WatchUpdate::Kind::kEvents) {
                EXPECT_GE(event.kv().mod_revision(), last) << "not in order";
                EXPECT_GT(event.kv().mod_revision(), seen) << "repeated";
                last = event.kv().mod_revision();
            }
            if (event.type() == v3::Event::DELETE) {
                state.erase(event.kv().key());
            } else {
                state[event.kv().key()] = event.kv().value();
                values.push_back(event.kv().value());
            }
        }
        seen = update.revision.value;
    }

    std::map<std::string, std::string> state;
    std::vector<std::string> values;  // as they were put
    std::vector<std::string> troubles;
    std::int64_t seen = 0;
    int resyncs = 0;
    std::unique_ptr<Watch> watch;
};

}  // namespace outrider::agent::test
